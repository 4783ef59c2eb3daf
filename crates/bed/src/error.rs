//! What can go wrong in the bed, and who is at fault.

use std::io;
use std::path::{Path, PathBuf};

/// A failure of the bed itself or of something it runs.
///
/// A broken promise of the product is not an error: it is a finding and stands in the
/// [`Report`](crate::report::Report).
#[derive(Debug, thiserror::Error)]
pub enum BedError {
    /// A tool of the machine (`ip`, `tcpdump`, `swanctl`, ...) failed.
    #[error("{program} failed: {detail}")]
    Tool {
        /// The program with its first arguments.
        program: String,
        /// What it said.
        detail: String,
    },
    /// A file or socket operation of the bed failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The operating system's answer.
        source: io::Error,
    },
    /// Something awaited did not happen.
    #[error("waited {waited_ms} ms in vain for {what}{hint}")]
    Timeout {
        /// What was awaited.
        what: String,
        /// How long, in milliseconds.
        waited_ms: u64,
        /// The newest explanation at hand, with its own separator, or nothing.
        hint: String,
    },
    /// The product answered something the bed does not understand, or refused.
    #[error("{program} answered unexpectedly: {detail}")]
    Answer {
        /// Which program of the product.
        program: String,
        /// What it said.
        detail: String,
    },
    /// A capture file cannot be read.
    #[error("capture {}: {detail}", path.display())]
    Capture {
        /// The file.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
}

impl BedError {
    /// Wraps an operating system error with what was being done to `path`.
    pub fn file(doing: &str, path: &Path, source: io::Error) -> Self {
        Self::Io { what: format!("{doing} {}", path.display()), source }
    }

    /// Wraps an operating system error with what was being done.
    pub fn io(what: impl Into<String>, source: io::Error) -> Self {
        Self::Io { what: what.into(), source }
    }
}
