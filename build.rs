//! What only the package that owns the binaries can say.
//!
//! `cfg(dpdk)` where DPDK is installed, the run path to libraries outside the system's folders
//! (link arguments do not cross packages), and the version stamp. Bindings are made in
//! `crates/dpdk-sys`.

use std::env;
use std::process::Command;

/// Folders the dynamic linker searches by itself.
const SYSTEM_FOLDERS: &[&str] = &["/lib", "/lib64", "/usr/lib", "/usr/lib64"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PKG_CONFIG_PATH");
    println!("cargo::rustc-check-cfg=cfg(dpdk)");
    if let Some(folder) = output(&["pkg-config", "--variable=libdir", "libdpdk"]) {
        println!("cargo::rustc-cfg=dpdk");
        if !is_system_folder(&folder) {
            println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
        }
    }
    println!("cargo::rustc-env=HOLDFAST_VERSION={}", version());
}

/// Debian's multiarch folders, such as /usr/lib/x86_64-linux-gnu, are the system's, too.
fn is_system_folder(folder: &str) -> bool {
    let parent = folder.rsplit_once('/').map_or("", |(parent, _)| parent);
    let multiarch = folder.ends_with("-linux-gnu") && SYSTEM_FOLDERS.contains(&parent);
    multiarch || SYSTEM_FOLDERS.contains(&folder)
}

/// `0.1.0 (1a2b3c4d5e6f)`. A debug build carries no commit: each one would rebuild it.
fn version() -> String {
    let number = env::var("CARGO_PKG_VERSION").unwrap_or_default();
    if env::var("PROFILE").is_ok_and(|profile| profile == "debug") {
        return format!("{number} (debug build)");
    }
    println!("cargo::rerun-if-changed=.git/logs/HEAD");
    match output(&["git", "rev-parse", "--short=12", "HEAD"]) {
        Some(commit) => format!("{number} ({commit})"),
        None => number,
    }
}

fn output(words: &[&str]) -> Option<String> {
    let (program, arguments) = words.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
