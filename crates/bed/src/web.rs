//! The targets' services: a real web server each, and a UDP echo.

use crate::error::BedError;
use crate::namespace::Namespace;
use crate::probe::is_transient;
use crate::process::Process;
use crate::topology::{COMMON, ECHO_PORT, HTTP_PORT};
use crate::wait::wait_until;
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::net::{SocketAddrV4, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Name of the large file every target serves.
pub const LARGE_FILE: &str = "large";
/// Path that answers with the serving target's name.
pub const WHO: &str = "/who";

/// What the large file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Its length.
    pub bytes: u64,
    /// Its SHA-256 in hexadecimal.
    pub sha256: String,
}

impl Content {
    /// Writes `bytes` bytes of reproducible noise into `folder`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn generate(folder: &Path, bytes: u64) -> Result<Self, BedError> {
        let path = folder.join(LARGE_FILE);
        let sha256 = write_noise(&path, bytes).map_err(|e| BedError::file("write", &path, e))?;
        Ok(Self { bytes, sha256 })
    }
}

fn write_noise(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut digest = Sha256::new();
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut left = bytes;
    let mut block = [0u8; 8192];
    while left > 0 {
        for word in block.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            word.copy_from_slice(&state.to_le_bytes());
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        let part = block.get(..length).unwrap_or_default();
        digest.update(part);
        file.write_all(part)?;
        left -= length as u64;
    }
    file.flush()?;
    Ok(hexadecimal(&digest.finalize()))
}

/// Lower-case hexadecimal.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// nginx and the echo of one target.
#[derive(Debug)]
pub struct Target {
    /// Its name, which `/who` and the header `Holdfast-Target` tell.
    pub name: String,
    nginx: Process,
    echo: Echo,
}

impl Target {
    /// Starts both services of target `number` in `namespace`. `files` is served, `limit` paces
    /// each download of the large file (bytes a second), `folder` takes configuration and logs.
    ///
    /// # Errors
    /// When a service does not come up.
    pub fn start(
        namespace: &Namespace,
        number: u8,
        files: &Path,
        folder: &Path,
        limit_bytes_per_s: u64,
    ) -> Result<Self, BedError> {
        let name = format!("target{number}");
        fs::create_dir_all(folder).map_err(|e| BedError::file("create", folder, e))?;
        let configuration = folder.join("nginx.conf");
        fs::write(&configuration, nginx_configuration(&name, files, folder, limit_bytes_per_s))
            .map_err(|e| BedError::file("write", &configuration, e))?;
        let command: [&std::ffi::OsStr; 7] = [
            "/usr/sbin/nginx".as_ref(),
            "-e".as_ref(),
            "stderr".as_ref(),
            "-p".as_ref(),
            folder.as_ref(),
            "-c".as_ref(),
            configuration.as_ref(),
        ];
        let nginx = Process::start(namespace, "nginx", &folder.join("stdout"), &[], &command)?;
        let echo = Echo::start(namespace, SocketAddrV4::new(COMMON, ECHO_PORT))?;
        let mut target = Self { name, nginx, echo };
        target.wait_until_serving(namespace)?;
        Ok(target)
    }

    fn wait_until_serving(&mut self, namespace: &Namespace) -> Result<(), BedError> {
        wait_until("a target's services", Duration::from_secs(10), || {
            self.nginx.expect_running()?;
            let attempt = namespace.spawn("web check", || {
                TcpStream::connect(SocketAddrV4::new(COMMON, HTTP_PORT)).is_ok() && echoes().is_ok()
            })?;
            Ok(matches!(attempt.join(), Ok(Ok(true))).then_some(()))
        })
    }

    /// Stops both services.
    pub fn stop(&mut self) {
        self.nginx.stop(Signal::TERM);
        self.echo.stop();
    }
}

impl Drop for Target {
    /// In order, so that the server's workers end with it.
    fn drop(&mut self) {
        self.stop();
    }
}

fn nginx_configuration(name: &str, files: &Path, folder: &Path, limit: u64) -> String {
    let (files, folder) = (files.display(), folder.display());
    format!(
        "daemon off;
worker_processes 1;
user root;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  sendfile on;
  # Small pieces make the limit a steady stream instead of bursts.
  sendfile_max_chunk 16k;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {COMMON}:{HTTP_PORT};
    root {files};
    default_type application/octet-stream;
    add_header Holdfast-Target {name} always;
    location = {WHO} {{
      return 200 {name};
    }}
    location = /{LARGE_FILE} {{
      limit_rate {limit};
    }}
  }}
}}
"
    )
}

/// A UDP echo server: a thread of the bed with its socket in the target's namespace.
#[derive(Debug)]
pub struct Echo {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<io::Result<()>>>>,
}

impl Echo {
    /// Starts echoing what reaches `address` in `namespace`.
    ///
    /// # Errors
    /// When the thread cannot start. An address that cannot be had ends it.
    pub fn start(namespace: &Namespace, address: SocketAddrV4) -> Result<Self, BedError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = namespace.spawn("echo", move || echo(&stopped, address))?;
        Ok(Self { stop, thread: Some(thread) })
    }

    fn stop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One datagram there and back, from within the target's namespace.
fn echoes() -> io::Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect(SocketAddrV4::new(COMMON, ECHO_PORT))?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.send(b"ready?")?;
    socket.recv(&mut [0; 16]).map(drop)
}

fn echo(stop: &AtomicBool, address: SocketAddrV4) -> io::Result<()> {
    let socket = UdpSocket::bind(address)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut datagram = [0u8; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv_from(&mut datagram) {
            // An answer that cannot be sent is a lost probe, which the prober counts.
            Ok((length, from)) => {
                let _ = socket.send_to(datagram.get(..length).unwrap_or_default(), from);
            }
            Err(e) if is_transient(&e) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_reproducible_and_its_digest_true() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let first = Content::generate(folder.path(), 100_001).expect("a file");
        let written = fs::read(folder.path().join(LARGE_FILE)).expect("the file");
        let second = Content::generate(folder.path(), 100_001).expect("a file");
        assert_eq!(written.len(), 100_001);
        assert_eq!(first.sha256, hexadecimal(&Sha256::digest(&written)));
        assert_eq!(first, second);
    }
}
