//! Programs the bed runs: to completion, or as guarded background processes.

use crate::error::BedError;
use crate::namespace::Namespace;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long a background process may take to obey SIGTERM before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Runs a program to its end and yields what it printed.
///
/// # Errors
/// [`BedError::Tool`] when it cannot start or does not exit with 0.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, BedError> {
    finish(program, Command::new(program).args(arguments), None)
}

/// As [`run`], with `input` on its standard input.
///
/// # Errors
/// As [`run`].
pub fn run_with_input(program: &str, arguments: &[&str], input: &str) -> Result<String, BedError> {
    finish(program, Command::new(program).args(arguments), Some(input))
}

/// Runs a prepared command to its end and yields what it printed.
///
/// # Errors
/// [`BedError::Tool`] when it cannot start or does not exit with 0.
pub fn finish(name: &str, command: &mut Command, input: Option<&str>) -> Result<String, BedError> {
    finish_with(name, command, input, &[0])
}

/// As [`finish`], where each of `good_codes` is a success.
///
/// # Errors
/// [`BedError::Tool`] when it cannot start or exits otherwise.
pub fn finish_with(
    name: &str,
    command: &mut Command,
    input: Option<&str>,
    good_codes: &[i32],
) -> Result<String, BedError> {
    let fault = |detail: String| BedError::Tool { program: name.to_owned(), detail };
    // A process group of its own: Ctrl-C at the terminal reaches the bed alone, which then ends
    // everything in order.
    command.process_group(0).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
    let mut child = command.spawn().map_err(|e| fault(format!("cannot start: {e}")))?;
    if let (Some(text), Some(mut pipe)) = (input, child.stdin.take()) {
        pipe.write_all(text.as_bytes()).map_err(|e| fault(e.to_string()))?;
    }
    let output = child.wait_with_output().map_err(|e| fault(e.to_string()))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.code().is_some_and(|code| good_codes.contains(&code)) {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(fault(format!("{}: {}{}", output.status, complaint.trim(), printed.trim())))
}

/// A background process in a namespace. Dropping it kills it.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: PathBuf,
    child: Child,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program` inside `namespace`, its output going to `log`.
    ///
    /// The kernel kills it as well when the thread that started it ends, so that even a SIGKILL
    /// of the bed leaves no process behind.
    ///
    /// # Errors
    /// When the log cannot be created or the program cannot start.
    pub fn start<S: AsRef<OsStr>>(
        namespace: &Namespace,
        name: &str,
        log: &Path,
        environment: &[(&str, &OsStr)],
        command_line: &[S],
    ) -> Result<Self, BedError> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(|e| BedError::file("create", log, e))?;
        let errors = output.try_clone().map_err(|e| BedError::file("share", log, e))?;
        // Both helpers replace themselves by what they start, so the child's id is the program's.
        let child = Command::new("ip")
            .args(["netns", "exec", namespace.name(), "setpriv", "--pdeathsig", "KILL", "--"])
            .args(command_line)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(|e| BedError::Tool { program: name.to_owned(), detail: e.to_string() })?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child, ended: None })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where its output goes.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    /// Fails with the end of its log when it no longer runs.
    ///
    /// # Errors
    /// [`BedError::Tool`].
    pub fn expect_running(&mut self) -> Result<(), BedError> {
        if self.runs() {
            return Ok(());
        }
        let status = self.ended.map(|s| s.to_string()).unwrap_or_default();
        Err(BedError::Tool {
            program: self.name.clone(),
            detail: format!("ended ({status}); its last words:\n{}", self.last_words(20)),
        })
    }

    /// The last `lines` lines of its log.
    pub fn last_words(&self, lines: usize) -> String {
        tail(&self.log, lines)
    }

    /// Kills it with SIGKILL, as a power cut would, and collects it.
    pub fn kill(&mut self) {
        if self.runs() {
            // Both can only fail when it has ended in between, which is what was wanted.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Sends SIGKILL and returns at once, without waiting for the end.
    pub fn kill_now(&mut self) {
        let _ = self.child.kill();
    }

    /// Sends it a signal, if it still runs.
    pub fn signal(&mut self, signal: Signal) {
        if let (true, Some(pid)) = (self.runs(), pid(&self.child)) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Asks it to stop with `signal` and waits; kills it when it does not obey.
    pub fn stop(&mut self, signal: Signal) {
        self.signal(signal);
        let end = Instant::now() + STOP_LIMIT;
        while self.runs() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
        self.kill();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// The last `lines` lines of a text file, or nothing.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
}
