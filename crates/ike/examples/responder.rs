//! A shell of sockets around the machine, for trying it against other implementations.
//!
//! `responder LOCAL PSK LOCAL_TS REMOTE_TS` answers IKE on ports 500 and 4500 of LOCAL; the option
//! `cookies` demands one of everybody, `fragments` makes even short messages travel in pieces, `slow` lets requests cross on the way. It takes
//! commands, one a line, from standard input: `list`, `rekey-child`, `rekey-ike`, `liveness`, `delete`,
//! and `takeover`, which lets a second instance continue from what was committed.
#![expect(clippy::print_stdout, reason = "an example shows what happens")]

use std::collections::BTreeMap;
use std::error::Error;
use std::io::{BufRead, Read};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use holdfast_crypto::SecretBytes;
use holdfast_ike::{Change, Connection, Datagram, EsnPolicy, Identity, Ike, IkeConfig, IkeSpi};
use holdfast_ipsec::TrafficSelector;
use holdfast_packet::Nanos;

type Failure = Box<dyn Error>;

struct Shell {
    config: IkeConfig,
    ike: Ike,
    committed: BTreeMap<IkeSpi, SecretBytes>,
    sockets: [(u16, UdpSocket); 2],
    start: Instant,
    pause: Duration,
}

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [local, psk, local_ts, remote_ts, options @ ..] = args.as_slice() else {
        return Err(
            "usage: responder LOCAL PSK LOCAL_TS REMOTE_TS [cookies] [fragments] [slow]".into()
        );
    };
    let local: Ipv4Addr = local.parse()?;
    let mut connection = Connection::new("any", SecretBytes::from(psk.as_bytes()));
    connection.local_ts = vec![prefix(local_ts)?];
    connection.remote_ts = vec![prefix(remote_ts)?];
    connection.esn = EsnPolicy::Allow;
    let mut config = IkeConfig::new(local, Identity::Ipv4(local));
    config.connections.push(connection);
    let mut pause = Duration::from_millis(2);
    for option in options {
        match option.as_str() {
            "cookies" => config.half_open_cookie_threshold = 0,
            "slow" => pause = Duration::from_millis(200),
            "fragments" => config.fragment_size = 150,
            other => return Err(format!("no option {other}").into()),
        }
    }
    let socket = |port| -> Result<_, Failure> {
        let socket = UdpSocket::bind((local, port))?;
        socket.set_nonblocking(true)?;
        Ok((port, socket))
    };
    let mut shell = Shell {
        ike: Ike::new(config.clone(), seed()?),
        config,
        committed: BTreeMap::new(),
        sockets: [socket(500)?, socket(4500)?],
        start: Instant::now(),
        pause,
    };
    println!("ready");
    shell.run(&commands())
}

fn prefix(text: &str) -> Result<TrafficSelector, Failure> {
    let (address, length) = text.split_once('/').ok_or("a prefix is written 10.0.0.0/8")?;
    Ok(TrafficSelector::prefix(address.parse()?, length.parse()?))
}

fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut seed)?;
    Ok(seed)
}

fn commands() -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Shell {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn run(&mut self, commands: &Receiver<String>) -> Result<(), Failure> {
        loop {
            match commands.try_recv() {
                Ok(command) if command == "quit" => return Ok(()),
                Ok(command) => self.command(&command)?,
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => return Ok(()),
            }
            self.commit_and_send()?;
            self.receive()?;
            self.ike.handle_timeout(self.now());
            self.commit_and_send()?;
            std::thread::sleep(self.pause);
        }
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let mut buffer = [0; 65_536];
        for index in 0..self.sockets.len() {
            let (port, socket) = &self.sockets[index];
            let port = *port;
            let (len, from) = match socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            };
            let payload = buffer.get(..len).unwrap_or_default();
            // On port 4500 the marker tells IKE from ESP (RFC 3948 section 2.2).
            let payload = if port == 500 { Some(payload) } else { payload.strip_prefix(&[0; 4]) };
            if let (Some(payload), SocketAddr::V4(remote)) = (payload, from) {
                let datagram = Datagram { local_port: port, remote, payload: payload.to_vec() };
                self.ike.handle_datagram(self.now(), &datagram);
                self.commit_and_send()?;
            }
        }
        Ok(())
    }

    fn commit_and_send(&mut self) -> Result<(), Failure> {
        while let Some(ready) = self.ike.poll_ready() {
            for change in ready.changes {
                self.commit(change);
            }
            for datagram in ready.datagrams {
                let found = self.sockets.iter().find(|(port, _)| *port == datagram.local_port);
                let (port, socket) = found.ok_or("a port we do not have")?;
                let marker: &[u8] = if *port == 500 { &[] } else { &[0; 4] };
                socket.send_to(&[marker, &datagram.payload].concat(), datagram.remote)?;
            }
        }
        Ok(())
    }

    fn commit(&mut self, change: Change) {
        match change {
            Change::PutIkeSa { spi, state, .. } => {
                if self.committed.insert(spi, state).is_none() {
                    println!("ike {spi} put");
                }
            }
            Change::DeleteIkeSa { spi } => {
                self.committed.remove(&spi);
                println!("ike {spi} deleted");
            }
            Change::PutChildSa { ike, parameters, .. } => {
                println!(
                    "child {} put in {ike}: out {} {:?} esn {} {:?} {:?}",
                    parameters.inbound_spi,
                    parameters.outbound_spi,
                    parameters.inbound_key.algorithm(),
                    parameters.esn,
                    parameters.encapsulation,
                    parameters.selectors
                );
            }
            Change::DeleteChildSa { inbound_spi } => println!("child {inbound_spi} deleted"),
        }
    }

    fn command(&mut self, command: &str) -> Result<(), Failure> {
        let now = self.now();
        if command == "takeover" {
            self.ike = Ike::new(self.config.clone(), seed()?);
            let records = self.committed.iter().map(|(spi, state)| (*spi, state.as_bytes()));
            println!("takeover: {:?}", self.ike.restore(now, records));
            return Ok(());
        }
        for sa in self.ike.sas().collect::<Vec<_>>() {
            let outcome = match command {
                "rekey-ike" if sa.state == "established" => self.ike.rekey_ike(now, sa.spi),
                "delete" => self.ike.delete_ike(now, sa.spi),
                "liveness" => self.ike.check_liveness(now, sa.spi),
                "rekey-child" => {
                    sa.children.iter().try_for_each(|spi| self.ike.rekey_child(now, *spi))
                }
                _ => {
                    println!("{sa:?}");
                    Ok(())
                }
            };
            println!("{command}: {outcome:?}");
        }
        if command == "list" {
            println!("counters {:?}", self.ike.counters());
        }
        Ok(())
    }
}
