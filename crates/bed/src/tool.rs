//! What the bed's programs share: ending well, and writing findings down.

use crate::error::BedError;
use crate::leftovers::clean_up_own;
use serde::Serialize;
use std::fs;
use std::path::Path;

/// Has a panic remove what this process made: the release profile aborts on one, so no guard would
/// run.
pub fn clean_up_on_panic() {
    let previous = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        previous(panic);
        clean_up_own();
    }));
}

/// Writes `findings` as one JSON object to `path`, or to standard output for "-".
///
/// # Errors
/// When the file cannot be written.
#[allow(clippy::print_stdout, reason = "asked for")]
pub fn write_json(path: &Path, findings: &impl Serialize) -> Result<(), BedError> {
    let text = serde_json::to_string_pretty(findings).map_err(|e| BedError::Answer {
        program: "serde_json".to_owned(),
        detail: e.to_string(),
    })?;
    if path.as_os_str() == "-" {
        println!("{text}");
        return Ok(());
    }
    write_file(path, &(text + "\n"))
}

/// Writes `text` to `path`, whose folder is made where there is none.
///
/// # Errors
/// When it cannot be written.
pub fn write_file(path: &Path, text: &str) -> Result<(), BedError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|e| BedError::file("create", folder, e))?;
    }
    fs::write(path, text).map_err(|e| BedError::file("write", path, e))
}
