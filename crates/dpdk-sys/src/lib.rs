//! DPDK bindings by bindgen.
