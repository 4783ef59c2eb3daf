use super::*;
use crate::clock;
use holdfast_api::{Client as ApiClient, ClientError, Done, Handover, StatusRequest};
use mio::{Events, Poll};
use std::thread;
use std::time::Duration;

const FIRST_TOKEN: usize = 10;
const PATIENCE: Duration = Duration::from_secs(20);

struct Daemon {
    poll: Poll,
    server: Server,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let poll = Poll::new().unwrap();
        let path = folder.path().join("run/holdfast.sock");
        let server = Server::new(&path, poll.registry().try_clone().unwrap(), FIRST_TOKEN).unwrap();
        Self { poll, server, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run/holdfast.sock")
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(8);
        self.poll.poll(&mut events, Some(Duration::from_millis(1))).unwrap();
        for event in &events {
            self.server.handle_event(clock::now(), event.token());
        }
    }

    /// Answers every request with `answer` while `client` runs in a thread of its own.
    fn serve<T: Send + 'static>(
        &mut self,
        client: impl FnOnce(PathBuf) -> T + Send + 'static,
        answer: impl Fn(RequestKind) -> ResponseKind,
    ) -> T {
        let path = self.path();
        let client = thread::spawn(move || client(path));
        while !client.is_finished() {
            self.turn();
            while let Some((id, request)) = self.server.poll_request() {
                self.server.answer(clock::now(), id, answer(request));
            }
        }
        client.join().unwrap()
    }
}

fn echo(request: RequestKind) -> ResponseKind {
    let operation = match request {
        RequestKind::Handover(Handover { to }) => to.unwrap_or(0),
        _ => 0,
    };
    ResponseKind::Done(Done { operation, text: "x".repeat(300_000) })
}

#[test]
fn questions_are_answered_one_after_the_other_however_long_the_answers() {
    let mut daemon = Daemon::new();
    let operations = daemon.serve(
        |path| {
            let mut client = ApiClient::connect(&path, PATIENCE).unwrap();
            let ask = |to| match client.call(RequestKind::Handover(Handover { to: Some(to) })) {
                Ok(ResponseKind::Done(done)) => done.operation,
                other => panic!("{other:?}"),
            };
            (1..5).map(ask).collect::<Vec<_>>()
        },
        echo,
    );
    assert_eq!(operations, [1, 2, 3, 4]);
}

#[test]
fn garbage_closes_only_who_sent_it() {
    let mut daemon = Daemon::new();
    let outcome = daemon.serve(
        |path| {
            let mut rude = std::os::unix::net::UnixStream::connect(&path).unwrap();
            rude.set_read_timeout(Some(PATIENCE)).unwrap();
            rude.write_all(&[0xff; 64]).unwrap();
            let mut nothing = Vec::new();
            rude.read_to_end(&mut nothing).ok();
            let mut polite = ApiClient::connect(&path, PATIENCE).unwrap();
            (nothing.len(), polite.call(RequestKind::Status(StatusRequest {})).is_ok())
        },
        echo,
    );
    assert_eq!(outcome, (0, true));
}

#[test]
fn a_request_of_a_newer_cli_is_refused_in_words() {
    let mut daemon = Daemon::new();
    let answer = daemon.serve(
        |path| {
            let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&encode_frame(&Request { kind: None }).unwrap()).unwrap();
            let mut reader = FrameReader::default();
            loop {
                if let Some(message) = reader.next_message().unwrap() {
                    break Response::decode(message.as_slice()).unwrap().kind;
                }
                let mut piece = [0; 1024];
                let read = stream.read(&mut piece).unwrap();
                assert_ne!(read, 0);
                reader.push(&piece[..read]);
            }
        },
        echo,
    );
    assert_eq!(answer, Some(not_understood()));
}

#[test]
fn the_socket_is_for_its_owner_only_and_goes_with_the_daemon() {
    let daemon = Daemon::new();
    let path = daemon.path();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Server::new(&path, daemon.poll.registry().try_clone().unwrap(), FIRST_TOKEN);
    assert_eq!(again.unwrap_err().kind(), ErrorKind::AddrInUse);
    let folder = daemon.folder;
    drop(daemon.server);
    assert!(!path.exists());
    let error = ApiClient::connect(&path, PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Connect { .. }));
    drop(folder);
}

#[test]
fn a_silent_client_is_closed_in_time() {
    let mut daemon = Daemon::new();
    let _silent = std::os::unix::net::UnixStream::connect(daemon.path()).unwrap();
    while daemon.server.clients.is_empty() {
        daemon.turn();
    }
    let due = daemon.server.poll_timeout().unwrap();
    daemon.server.handle_timeout(due);
    assert!(daemon.server.clients.is_empty());
}
