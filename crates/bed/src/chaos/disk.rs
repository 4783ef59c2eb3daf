//! A member's disk: a small file system of its own that can be filled and can fail.
//!
//! An ext4 file system in a file on the memory file system, mounted through a loop device. Full:
//! the rest of it is taken. Failing: the kernel is told of an error and allows no more writing, as
//! it does when a real disk has one; checked and mounted anew afterwards, nothing is lost that was
//! acknowledged.

use crate::error::BedError;
use crate::process::{finish_with, run};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room for a member's log and snapshots of the bed's few SAs.
const DISK_BYTES: u64 = 160 << 20;
const FILLING: &str = "filling";

/// The file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    repairs: u32,
}

impl Disk {
    /// Makes the file system in `image` and mounts it on `mount`.
    ///
    /// # Errors
    /// When the machine has no loop device to spare, or refuses.
    pub fn mount_new(image: &Path, mount: &Path) -> Result<Self, BedError> {
        let file = File::create(image).map_err(|e| BedError::file("create", image, e))?;
        file.set_len(DISK_BYTES).map_err(|e| BedError::file("size", image, e))?;
        fs::create_dir_all(mount).map_err(|e| BedError::file("create", mount, e))?;
        let disk = Self { image: image.to_owned(), mount: mount.to_owned(), repairs: 0 };
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(image)])?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<(), BedError> {
        let options = "loop,errors=remount-ro,noatime";
        run("mount", &["-t", "ext4", "-o", options, &text(&self.image), &text(&self.mount)])
            .map(drop)
    }

    /// Takes all room that is left.
    ///
    /// # Errors
    /// When the file that takes it cannot be made.
    pub fn fill(&self) -> Result<(), BedError> {
        let path = self.mount.join(FILLING);
        let mut file = File::create(&path).map_err(|e| BedError::file("create", &path, e))?;
        let block = vec![0u8; 1 << 20];
        for size in [block.len(), 4096, 1] {
            let part = block.get(..size).unwrap_or_default();
            // Until it fails, which is what is wanted.
            while file.write_all(part).is_ok() {}
        }
        // There may be room no more even for this.
        let _ = file.sync_all();
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the file that took it cannot be removed.
    pub fn relieve(&self) -> Result<(), BedError> {
        let path = self.mount.join(FILLING);
        fs::remove_file(&path).map_err(|e| BedError::file("remove", &path, e))
    }

    /// Lets it have an error: no more writing.
    ///
    /// # Errors
    /// When the kernel has no such switch.
    pub fn break_down(&self) -> Result<(), BedError> {
        let device = run("findmnt", &["-no", "SOURCE", &text(&self.mount)])?;
        let name = device.trim().trim_start_matches("/dev/").to_owned();
        let switch = PathBuf::from(format!("/sys/fs/ext4/{name}/trigger_fs_error"));
        fs::write(&switch, "failing disk of the test bed")
            .map_err(|e| BedError::file("write", &switch, e))
    }

    /// Checks and mounts it anew. Nothing may use it meanwhile.
    ///
    /// # Errors
    /// When it cannot be repaired.
    pub fn repair(&mut self) -> Result<(), BedError> {
        run("umount", &["-l", &text(&self.mount)])?;
        // Namespaces of older processes still have the old one mounted: only a copy of what is on
        // it can be mounted for writing.
        self.repairs += 1;
        let copy = self.image.with_extension(format!("{}.img", self.repairs));
        run("cp", &["--sparse=always", &text(&self.image), &text(&copy)])?;
        fs::remove_file(&self.image).map_err(|e| BedError::file("remove", &self.image, e))?;
        self.image = copy;
        // 1: errors were corrected.
        let mut check = Command::new("e2fsck");
        check.args(["-f", "-y"]).arg(&self.image);
        finish_with("e2fsck", &mut check, None, &[0, 1])?;
        self.mount()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", &text(&self.mount)]);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
