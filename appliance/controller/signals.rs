//! Signals as events of the poll.

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;
use std::io::{self, ErrorKind, Read};

/// Wakes the poll on `SIGTERM`, `SIGINT` (stop) and `SIGHUP`.
#[derive(Debug)]
pub(crate) struct Signals {
    stop: UnixStream,
    hangup: UnixStream,
}

impl Signals {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let stop = watch(registry, token, &[SIGTERM, SIGINT])?;
        let hangup = watch(registry, token, &[SIGHUP])?;
        Ok(Self { stop, hangup })
    }

    /// Whether the daemon was asked to stop since the last call.
    pub(crate) fn take_stop(&mut self) -> bool {
        take(&mut self.stop)
    }

    /// Whether `SIGHUP` came since the last call.
    pub(crate) fn take_hangup(&mut self) -> bool {
        take(&mut self.hangup)
    }
}

fn watch(registry: &Registry, token: Token, signals: &[i32]) -> io::Result<UnixStream> {
    let (mut here, there) = std::os::unix::net::UnixStream::pair().and_then(|(here, there)| {
        here.set_nonblocking(true)?;
        Ok((UnixStream::from_std(here), there))
    })?;
    for signal in signals {
        pipe::register(*signal, there.try_clone()?)?;
    }
    registry.register(&mut here, token, Interest::READABLE)?;
    Ok(here)
}

fn take(stream: &mut UnixStream) -> bool {
    let mut bytes = [0u8; 64];
    let mut any = false;
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return any,
            Ok(_) => any = true,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return any,
        }
    }
}
