//! What a bed leaves behind when it is killed itself, told by its name and removed.
//!
//! Everything a bed makes carries the process id of its maker, so that nobody else's things, and
//! no running bed's, are ever touched.

use crate::error::BedError;
use crate::process::run;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use tempfile::TempDir;

/// Start of every namespace's name, before the process id.
const NAMESPACE_FAMILY: &str = "hf";
/// Start of every folder's name, before the process id.
const FOLDER_FAMILY: &str = "holdfast-bed-";
/// Memory file system for what is large and need not outlive the bed.
pub(crate) const MEMORY_FOLDER: &str = "/dev/shm";

/// A namespace prefix no other bed on this machine uses.
pub fn unique_prefix() -> String {
    static BEDS: AtomicU32 = AtomicU32::new(0);
    let bed = BEDS.fetch_add(1, Ordering::Relaxed);
    format!("{NAMESPACE_FAMILY}{}x{bed}-", process::id())
}

/// A temporary folder in `parent`, removed on drop.
///
/// # Errors
/// When it cannot be made.
pub fn folder_in(parent: &Path) -> Result<TempDir, BedError> {
    let prefix = format!("{FOLDER_FAMILY}{}-", process::id());
    let made = tempfile::Builder::new().prefix(&prefix).tempdir_in(parent);
    made.map_err(|e| BedError::file("create a folder in", parent, e))
}

/// Removes what beds that no longer run have left, and tells the names.
///
/// # Errors
/// When the namespaces cannot be listed.
pub fn clean_up_orphans() -> Result<Vec<String>, BedError> {
    clean_up(&|id| !Path::new(&format!("/proc/{id}")).exists())
}

/// Removes everything this process made. For a panic hook: it takes no lock and needs no guard.
pub fn clean_up_own() {
    // There is nobody left to tell of a failure.
    let _ = clean_up(&|id| id == process::id());
}

fn clean_up(applies: &dyn Fn(u32) -> bool) -> Result<Vec<String>, BedError> {
    let listed = run("ip", &["netns", "list"])?;
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let mut removed = Vec::new();
    for name in names.filter(|name| namespace_maker(name).is_some_and(applies)) {
        remove_namespace(name);
        removed.push(name.to_owned());
    }
    for folder in folders().into_iter().filter(|path| folder_maker(path).is_some_and(applies)) {
        unmount_below(&folder);
        let _ = std::fs::remove_dir_all(&folder);
        removed.push(folder.display().to_string());
    }
    Ok(removed)
}

/// Kills what runs in a namespace and deletes it. Failures are ignored: it may be gone already.
pub(crate) fn remove_namespace(name: &str) {
    let processes = run("ip", &["netns", "pids", name]).unwrap_or_default();
    let ids: Vec<&str> = processes.split_whitespace().collect();
    if !ids.is_empty() {
        let mut kill = vec!["-KILL"];
        kill.extend(&ids);
        let _ = run("kill", &kill);
    }
    let _ = run("ip", &["netns", "del", name]);
}

/// Unmounts what is mounted in a folder, so that it can be removed. A disk of a bed is a file in
/// the same folder.
fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split_whitespace().nth(1));
    for point in points.filter(|point| Path::new(point).starts_with(folder)) {
        let _ = run("umount", &["-l", point]);
    }
}

fn namespace_maker(name: &str) -> Option<u32> {
    name.strip_prefix(NAMESPACE_FAMILY)?.split_once('x')?.0.parse().ok()
}

fn folder_maker(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix(FOLDER_FAMILY)?.split_once('-')?.0.parse().ok()
}

fn folders() -> Vec<PathBuf> {
    let parents = [PathBuf::from(MEMORY_FOLDER), std::env::temp_dir()];
    let entries = parents.iter().filter_map(|parent| std::fs::read_dir(parent).ok());
    entries.flat_map(|entries| entries.flatten().map(|entry| entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_read_from_names_and_strangers_have_none() {
        assert_eq!(namespace_maker("hf123x0-client"), Some(123));
        assert_eq!(folder_maker(Path::new("/dev/shm/holdfast-bed-77-AbC")), Some(77));
        for stranger in ["hfmine", "somebody-else", "hf12-client", "hfoxx"] {
            assert_eq!(namespace_maker(stranger), None, "{stranger}");
        }
        assert_eq!(folder_maker(Path::new("/dev/shm/holdfast-other-1-x")), None);
    }

    #[test]
    fn names_of_one_process_differ_and_lead_back_to_it() {
        let (first, second) = (unique_prefix(), unique_prefix());
        assert_ne!(first, second);
        assert_eq!(namespace_maker(&first), Some(process::id()));
        let folder = folder_in(&std::env::temp_dir()).expect("a folder");
        assert_eq!(folder_maker(folder.path()), Some(process::id()));
    }
}
