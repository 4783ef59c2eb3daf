//! The worker from the outside: bytes in, bytes out.
