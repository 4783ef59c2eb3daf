//! DPDK as C sees it: bindings generated from the installed headers.
//!
//! This is the raw interface, allow-listed to what Holdfast uses. It is *not* an interface to write
//! programs with: `holdfast-dpdk-wrap` makes owning, safe types of it, and is its only user.
//!
//! ```text
//!   pkg-config libdpdk ─> flags ─┬─> bindgen(wrapper.h) ─> bindings.rs ─> this crate
//!                                └─> cc(static inline functions) ──────────┘ links librte_*
//! ```
//!
//! Contract: nothing here depends on one DPDK release. Structures that differ between releases are
//! opaque; fields of an mbuf are reached through the `HOLDFAST_MBUF_*` offsets that the installed
//! headers gave; configuration goes through the `holdfast_*` functions in `wrapper.h`.
//! Every function is `unsafe` to call and has the preconditions of DPDK's manual.

#[allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unused_qualifications,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::multiple_unsafe_ops_per_block,
    clippy::undocumented_unsafe_blocks,
    clippy::use_self,
    missing_debug_implementations,
    reason = "generated code follows C's names and bindgen's habits"
)]
mod bindings {
    include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
}

pub use bindings::*;

// An mbuf is two cache lines in every release; its fields' offsets fit there.
const _: () = assert!(size_of::<rte_mbuf>() == 128);
const _: () = assert!(HOLDFAST_MBUF_BUF_ADDR < 64 && HOLDFAST_MBUF_PKT_LEN < 64);
