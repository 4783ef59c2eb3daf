//! AEAD for bursts, PRF, key exchange.
#![forbid(unsafe_code)]
