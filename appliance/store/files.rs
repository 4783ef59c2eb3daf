//! Carries out what the log's writer asks for.

use holdfast_replica::wal::FileOp;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What a file is called while it is being written.
pub(super) const UNFINISHED: &str = ".new";

/// The data directory and the segment that is being appended to.
#[derive(Debug)]
pub(super) struct Files {
    folder: Folder,
    current: Option<Current>,
}

/// The data directory.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    directory: File,
}

#[derive(Debug)]
struct Current {
    name: String,
    file: File,
    /// A sync was asked for and not done yet.
    owes_sync: bool,
}

impl Files {
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let folder = Folder { path: folder.to_owned(), directory: File::open(folder)? };
        Ok(Self { folder, current: None })
    }

    /// The directory, for another thread.
    pub(super) fn folder(&self) -> io::Result<Folder> {
        let directory = self.folder.directory.try_clone()?;
        Ok(Folder { path: self.folder.path.clone(), directory })
    }

    /// Carries the steps out in order. Syncs of one segment in a row are one: that is the group
    /// commit.
    pub(super) fn carry_out(&mut self, steps: impl IntoIterator<Item = FileOp>) -> io::Result<()> {
        for step in steps {
            self.step(step)?;
        }
        self.sync_if_owed()
    }

    fn step(&mut self, step: FileOp) -> io::Result<()> {
        match step {
            FileOp::Append { name, bytes } => self.segment(&name)?.file.write_all(&bytes),
            FileOp::Sync { name } => {
                self.segment(&name)?.owes_sync = true;
                Ok(())
            }
            FileOp::Create { name, bytes } => {
                self.sync_if_owed()?;
                self.create(name, &bytes)
            }
            FileOp::Replace { name, bytes } => {
                self.sync_if_owed()?;
                self.folder.replace(&name, &bytes)
            }
            FileOp::Delete { name } => {
                self.sync_if_owed()?;
                self.delete(&name)
            }
        }
    }

    /// The file to append to; only the one created last is ever asked for.
    fn segment(&mut self, name: &str) -> io::Result<&mut Current> {
        self.current
            .as_mut()
            .filter(|current| current.name == name)
            .ok_or_else(|| io::Error::other(format!("{name} is not the segment in use")))
    }

    fn sync_if_owed(&mut self) -> io::Result<()> {
        if let Some(current) = &mut self.current
            && std::mem::take(&mut current.owes_sync)
        {
            current.file.sync_data()?;
        }
        Ok(())
    }

    fn create(&mut self, name: String, bytes: &[u8]) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let mut file =
            options.append(true).create_new(true).mode(0o600).open(self.folder.path.join(&name))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.folder.directory.sync_all()?;
        self.current = Some(Current { name, file, owes_sync: false });
        Ok(())
    }

    fn delete(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.folder.path.join(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}

impl Folder {
    /// Writes a file so that a crash leaves what there was or all of this.
    pub(super) fn replace(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let written = self.path.join(format!("{name}{UNFINISHED}"));
        let mut options = OpenOptions::new();
        let mut file =
            options.write(true).create(true).truncate(true).mode(0o600).open(&written)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&written, self.path.join(name))?;
        self.directory.sync_all()
    }
}
