//! Safe, owning DPDK: EAL, mempools, mbufs, ports.
