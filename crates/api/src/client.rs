//! The CLI's side of the socket.

use crate::{FrameError, FrameReader, Request, RequestKind, Response, ResponseKind, encode_frame};
use prost::Message;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a question got no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens on the socket, or this user may not open it.
    #[error("cannot reach the daemon at {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke or the answer took too long.
    #[error("the daemon did not answer: {0}")]
    Io(#[from] io::Error),
    /// The other side does not speak this protocol.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The answer cannot be decoded, or it is of a kind this CLI does not know.
    #[error("the daemon's answer is not understood; are both of the same version?")]
    NotUnderstood,
}

/// A blocking connection to one member.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    reader: FrameReader,
}

impl Client {
    /// Connects to the daemon's socket; each later read and write waits at most `timeout`.
    ///
    /// # Errors
    /// [`ClientError::Connect`] if nobody listens there.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let connect = || -> io::Result<UnixStream> {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(timeout))?;
            stream.set_write_timeout(Some(timeout))?;
            Ok(stream)
        };
        let stream =
            connect().map_err(|source| ClientError::Connect { path: path.to_owned(), source })?;
        Ok(Self { stream, reader: FrameReader::default() })
    }

    /// Asks one question and waits for its answer.
    ///
    /// # Errors
    /// When the connection breaks, the answer is late or is not understood.
    pub fn call(&mut self, kind: RequestKind) -> Result<ResponseKind, ClientError> {
        self.stream.write_all(&encode_frame(&Request { kind: Some(kind) })?)?;
        let message = self.read_message()?;
        let response =
            Response::decode(message.as_slice()).map_err(|_| ClientError::NotUnderstood)?;
        response.kind.ok_or(ClientError::NotUnderstood)
    }

    fn read_message(&mut self) -> Result<Vec<u8>, ClientError> {
        let mut piece = [0u8; 16 * 1024];
        loop {
            if let Some(message) = self.reader.next_message()? {
                return Ok(message);
            }
            let read = self.stream.read(&mut piece)?;
            if read == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
            self.reader.push(piece.get(..read).unwrap_or_default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Done, Handover};

    #[test]
    fn a_question_gets_its_answer() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client { stream: ours, reader: FrameReader::default() };
        let answer = Response {
            kind: Some(ResponseKind::Done(Done { operation: 7, text: "handed over".into() })),
        };
        theirs.write_all(&encode_frame(&answer).unwrap()).unwrap();

        let got = client.call(RequestKind::Handover(Handover { to: Some(2) })).unwrap();
        assert_eq!(Some(got), answer.kind);

        let mut sent = FrameReader::default();
        let mut piece = [0; 64];
        let read = theirs.read(&mut piece).unwrap();
        sent.push(&piece[..read]);
        let request = Request::decode(sent.next_message().unwrap().unwrap().as_slice()).unwrap();
        assert_eq!(request.kind, Some(RequestKind::Handover(Handover { to: Some(2) })));
    }

    #[test]
    fn a_daemon_that_closes_is_an_error_not_a_hang() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut client = Client { stream: ours, reader: FrameReader::default() };
        let outcome = client.call(RequestKind::Status(crate::StatusRequest {}));
        assert!(matches!(outcome, Err(ClientError::Io(_))));
    }

    #[test]
    fn a_missing_socket_is_named() {
        let nowhere = Path::new("/nonexistent/holdfast.sock");
        let error = Client::connect(nowhere, Duration::from_millis(10)).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/holdfast.sock"));
    }
}
