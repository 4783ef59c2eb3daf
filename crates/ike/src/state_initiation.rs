//! An IKE SA that we have begun, as octets: from the moment our IKE_AUTH request may leave, a successor
//! must be able to repeat it and to understand the answer.

use std::net::SocketAddrV4;

use holdfast_crypto::SecretBytes;
use holdfast_ipsec::Selectors;
use holdfast_packet::Nanos;

use crate::IkeSpi;
use crate::codec::Writer;
use crate::config::Identity;
use crate::initiate::{Auth, Dial, Initiation, Stage};
use crate::nat::Nat;
use crate::sa::Path;
use crate::state::{In, KIND_BEGUN, Out, Read, VERSION};

/// Writes one whose IKE_AUTH request is under way; before that there is nothing to keep.
pub(crate) fn encode_begun(begun: &Initiation) -> Option<SecretBytes> {
    let Stage::Auth(auth) = &begun.stage else { return None };
    // Room for all of it, so that the buffer never grows and leaves copies of keys behind.
    let messages: usize = auth.messages.iter().map(|message| message.len() + 8).sum();
    let selectors = begun.dial.selectors.local.len() + begun.dial.selectors.remote.len();
    let room = 4_096 + messages + auth.response.len() + 16 * selectors;
    let mut out = Out { now: Nanos::ZERO, writer: Writer::with_capacity(room) };
    out.writer.u16(VERSION).u8(KIND_BEGUN);
    out.dial(&begun.dial);
    out.writer.u16(begun.path.local_port).u32((*begun.path.remote.ip()).into());
    out.writer.u16(begun.path.remote.port());
    out.auth(auth);
    Some(SecretBytes::new(out.writer.into_bytes()))
}

impl Out {
    fn dial(&mut self, dial: &Dial) {
        self.bytes(dial.connection.as_bytes());
        self.writer.u16(dial.local_port).u32((*dial.peer.ip()).into()).u16(dial.peer.port());
        match &dial.identity {
            None => {
                self.writer.u8(0);
            }
            Some(identity) => {
                self.writer.u8(1);
                self.bytes(&identity.emit());
            }
        }
        self.selectors(&dial.selectors.local);
        self.selectors(&dial.selectors.remote);
        self.writer.u64(dial.replaces.0);
    }

    fn auth(&mut self, auth: &Auth) {
        self.writer.u64(auth.spi_r);
        self.suite(&auth.suite);
        self.keys(&auth.keys);
        self.bytes(&auth.nonce_i);
        self.bytes(&auth.nonce_r);
        self.bytes(&auth.response);
        self.writer.u32(auth.inbound.get());
        self.writer.u8(auth.nat.local.into()).u8(auth.nat.remote.into());
        self.writer.u8(auth.fragmentation.into()).u64(auth.sealed);
        self.messages(&auth.messages);
    }
}

impl In<'_> {
    /// Reads one back; its request is due at once.
    pub(crate) fn begun(&mut self) -> Read<Initiation> {
        let dial = self.dial()?;
        let local_port = self.cursor.u16()?;
        let remote = SocketAddrV4::new(self.address()?, self.cursor.u16()?);
        let path = Path { local_port, remote };
        let stage = Stage::Auth(Box::new(self.auth()?));
        Ok(Initiation { dial, path, stage, attempt: 0, at: self.now })
    }

    fn dial(&mut self) -> Read<Dial> {
        let connection = self.text()?;
        let local_port = self.cursor.u16()?;
        let peer = SocketAddrV4::new(self.address()?, self.cursor.u16()?);
        let identity = if self.flag()? { Some(Identity::parse(self.bytes()?)?) } else { None };
        let selectors =
            Selectors { local: self.list(Self::selector)?, remote: self.list(Self::selector)? };
        let replaces = IkeSpi(self.cursor.u64()?);
        Ok(Dial { connection, local_port, peer, identity, selectors, replaces })
    }

    fn auth(&mut self) -> Read<Auth> {
        Ok(Auth {
            spi_r: self.cursor.u64()?,
            suite: self.suite()?,
            keys: self.keys()?,
            nonce_i: self.bytes()?.to_vec(),
            nonce_r: self.bytes()?.to_vec(),
            response: self.bytes()?.to_vec(),
            inbound: self.spi()?,
            nat: Nat { local: self.flag()?, remote: self.flag()? },
            fragmentation: self.flag()?,
            sealed: self.cursor.u64()?,
            messages: self.messages()?,
            fragments: None,
        })
    }
}
