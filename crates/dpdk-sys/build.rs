//! Generates the bindings from the installed DPDK headers.
//!
//! What is needed: `pkg-config`, a C compiler, libclang and DPDK's development package. Each one
//! that is missing is named with the Debian package that brings it.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

/// The oldest release whose names (`RTE_ETH_*`) and promises (`--in-memory` with external threads)
/// are those used here.
const OLDEST: &str = "21.11";

/// Functions that Rust calls.
const FUNCTIONS: &[&str] = &[
    "holdfast_.*",
    "rte_eal_init",
    "rte_eth_dev_(adjust_nb_rx_tx_desc|close|default_mac_addr_set|get_mtu|get_port_by_name)",
    "rte_eth_dev_(set_mtu|socket_id|start|stop)",
    "rte_eth_macaddr_get",
    "rte_eth_promiscuous_enable",
    "rte_eth_(rx|tx)_burst",
    "rte_eth_(rx|tx)_queue_setup",
    "rte_eth_stats_get",
    "rte_mempool_(avail|in_use)_count",
    "rte_pktmbuf_(alloc|free|pool_create)",
    "rte_strerror",
    "rte_thread_(register|unregister)",
    "rte_version",
];
/// Types that Rust looks into.
const TYPES: &[&str] = &["holdfast_.*", "rte_eth_stats", "rte_ether_addr"];
/// Types that Rust only points at; their layout is no business of ours.
const OPAQUE: &[&str] =
    &["rte_eth_(rx|tx)conf", "rte_eth_conf", "rte_eth_dev_info", "rte_mbuf.*", "rte_mempool.*"];
/// Constants.
const VALUES: &[&str] = &["RTE_PKTMBUF_HEADROOM"];
/// Libraries that define the functions above. Drivers are not among them: EAL loads those itself.
const LIBRARIES: &[&str] = &["rte_eal", "rte_ethdev", "rte_mbuf", "rte_mempool"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=wrapper.h");
    println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");

    let dpdk = probe_dpdk();
    let flags = compiler_flags();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    point_bindgen_at_libclang();
    generate_bindings(&flags, &out);
    compile_static_functions(&flags, &out);
    for path in &dpdk.link_paths {
        println!("cargo::rustc-link-search=native={}", path.display());
    }
    for library in LIBRARIES {
        println!("cargo::rustc-link-lib=dylib={library}");
    }
    println!("cargo::metadata=version={}", dpdk.version);
}

fn fail(what: &str, remedy: &str) -> ! {
    println!("cargo::error={what}. {remedy}");
    exit(1)
}

fn probe_dpdk() -> pkg_config::Library {
    let probe = pkg_config::Config::new()
        .atleast_version(OLDEST)
        .cargo_metadata(false)
        .env_metadata(true)
        .probe("libdpdk");
    match probe {
        Ok(library) => library,
        Err(pkg_config::Error::Command { .. }) => {
            fail("pkg-config does not run", "Install it: apt install pkg-config")
        }
        Err(error) => fail(
            &format!("DPDK {OLDEST} or newer was not found ({})", first_line(&error.to_string())),
            "Install it: apt install libdpdk-dev (or point PKG_CONFIG_PATH at libdpdk.pc)",
        ),
    }
}

fn first_line(text: &str) -> &str {
    text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default()
}

/// All compiler flags of DPDK. The `pkg-config` crate keeps only `-I` and `-D`, but the headers
/// need `-include rte_config.h` and the instruction set their inline functions are written for.
fn compiler_flags() -> Vec<String> {
    let program = env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into());
    output_of(&program, &["--cflags", "libdpdk"])
        .unwrap_or_else(|| fail("pkg-config --cflags libdpdk fails", "Is libdpdk.pc complete?"))
        .split_whitespace()
        .map(str::to_owned)
        .collect()
}

fn output_of(program: &OsStr, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Chooses the libclang that belongs to the headers bindgen will use.
///
/// With several LLVM releases installed the newest libclang and the `clang` on the path can be of
/// different releases; the one's parser then fails in the other's vector headers. A
/// `LIBCLANG_PATH` that is set is left alone.
fn point_bindgen_at_libclang() {
    if env::var_os("LIBCLANG_PATH").is_some() {
        return;
    }
    let Some(folder) = libclang_of_clang().or_else(newest_libclang) else {
        return; // bindgen's own search has the last word
    };
    // SAFETY: a build script has one thread at this point, so nobody reads the environment.
    unsafe { env::set_var("LIBCLANG_PATH", folder) };
}

/// `clang -print-resource-dir` is LIB/clang/VERSION.
fn libclang_of_clang() -> Option<PathBuf> {
    let resources = output_of(OsStr::new("clang"), &["-print-resource-dir"])?;
    let folder = Path::new(resources.trim()).parent()?.parent()?;
    has_libclang(folder).then(|| folder.to_owned())
}

/// The newest of Debian's /usr/lib/llvm-N/lib that has libclang.
fn newest_libclang() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten();
    let versions = folders.filter_map(|entry| {
        let version = entry.file_name().to_str()?.strip_prefix("llvm-")?.parse::<u32>().ok()?;
        Some((version, entry.path().join("lib")))
    });
    versions.filter(|(_, folder)| has_libclang(folder)).max().map(|(_, folder)| folder)
}

fn has_libclang(folder: &Path) -> bool {
    let Ok(entries) = fs::read_dir(folder) else { return false };
    entries.flatten().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // libclang.so.1 or libclang-14.so, but not libclang-cpp.so, which is another interface.
        let rest = name.strip_prefix("libclang").unwrap_or_default();
        rest.starts_with(".so")
            || rest.strip_prefix('-').is_some_and(|r| r.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn generate_bindings(flags: &[String], out: &Path) {
    let mut builder = bindgen::Builder::default()
        .header("wrapper.h")
        .clang_args(flags)
        .allowlist_recursively(true)
        .default_enum_style(bindgen::EnumVariation::Consts)
        .prepend_enum_name(false)
        .derive_debug(false)
        .derive_default(true)
        .generate_comments(false)
        .layout_tests(true)
        .wrap_static_fns(true)
        .wrap_static_fns_path(out.join("static_functions"));
    for name in FUNCTIONS {
        builder = builder.allowlist_function(name);
    }
    for name in TYPES {
        builder = builder.allowlist_type(name);
    }
    for name in OPAQUE {
        builder = builder.opaque_type(name);
    }
    for name in VALUES {
        builder = builder.allowlist_var(name);
    }
    // Without libclang bindgen panics.
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| builder.generate()));
    let Ok(outcome) = outcome else {
        fail("bindgen found no libclang", "Install it: apt install libclang-dev")
    };
    let bindings = outcome.unwrap_or_else(|error| {
        fail(
            &format!("bindgen cannot read DPDK's headers ({})", first_line(&error.to_string())),
            "With several releases of LLVM installed: set LIBCLANG_PATH to that of clang",
        )
    });
    if let Err(error) = bindings.write_to_file(out.join("bindings.rs")) {
        fail(&format!("bindings.rs cannot be written ({error})"), "Is the disk full?");
    }
}

/// Compiles the callable twins of static inline functions that bindgen wrote.
fn compile_static_functions(flags: &[String], out: &Path) {
    let mut compiler = cc::Build::new();
    compiler
        .file(out.join("static_functions.c"))
        .include(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default())
        .opt_level(3) // the bursts are here: fast in every profile
        .warnings(false);
    for flag in flags {
        compiler.flag(flag);
    }
    compiler.compile("holdfast_dpdk_static");
}
