//! Why a connection was refused, counted.

use std::collections::BTreeMap;

/// Why a connection from or to a member was refused or given up. The other side is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// Its certificate is not of this cluster's authority.
    ForeignCertificate,
    /// It showed no certificate.
    NoCertificate,
    /// It does not accept *our* certificate.
    OurCertificateRefused,
    /// Its certificate is another member's, or it wants another member.
    WrongMember,
    /// Its certificate is not that of the target it says it is, or there is no such target.
    WrongTarget,
    /// It was removed from the cluster for good.
    RetiredMember,
    /// What it sends is not TLS 1.3 as expected.
    TlsMalformed,
    /// The first message is not a greeting of this protocol.
    GreetingMalformed,
    /// A message longer than its lane allows.
    MessageTooLong,
    /// It did not finish its greeting in time.
    GreetingLate,
    /// Too many connections at once that have not greeted yet.
    TooManyStrangers,
}

impl Refusal {
    /// A stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ForeignCertificate => "foreign_certificate",
            Self::NoCertificate => "no_certificate",
            Self::OurCertificateRefused => "our_certificate_refused",
            Self::WrongMember => "wrong_member",
            Self::WrongTarget => "wrong_target",
            Self::RetiredMember => "retired_member",
            Self::TlsMalformed => "tls_malformed",
            Self::GreetingMalformed => "greeting_malformed",
            Self::MessageTooLong => "message_too_long",
            Self::GreetingLate => "greeting_late",
            Self::TooManyStrangers => "too_many_strangers",
        }
    }

    /// What a failure of TLS means.
    pub(super) fn of(error: &rustls::Error) -> Self {
        use rustls::AlertDescription as Alert;
        match error {
            rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName)
            | rustls::Error::InvalidCertificate(
                rustls::CertificateError::NotValidForNameContext { .. },
            ) => Self::WrongMember,
            rustls::Error::InvalidCertificate(_) => Self::ForeignCertificate,
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(
                Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::DecryptError
                | Alert::CertificateUnknown
                | Alert::CertificateRequired
                | Alert::AccessDenied,
            ) => Self::OurCertificateRefused,
            _ => Self::TlsMalformed,
        }
    }
}

/// How often each reason occurred.
#[derive(Debug, Default)]
pub struct RefusalCounters {
    counts: BTreeMap<Refusal, u64>,
}

impl RefusalCounters {
    /// Counts one. Returns how many there are now if that is worth a line of the log: the first,
    /// the second, the fourth and so on, so that whoever tries for ever does not fill the disk.
    pub fn add(&mut self, refusal: Refusal) -> Option<u64> {
        let count = self.counts.entry(refusal).or_default();
        *count = count.saturating_add(1);
        count.is_power_of_two().then_some(*count)
    }

    /// How often `refusal` occurred.
    #[must_use]
    pub fn count(&self, refusal: Refusal) -> u64 {
        self.counts.get(&refusal).copied().unwrap_or(0)
    }

    /// Every reason that occurred.
    pub fn iter(&self) -> impl Iterator<Item = (Refusal, u64)> {
        self.counts.iter().map(|(refusal, count)| (*refusal, *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_counts_and_ever_fewer_are_worth_a_line() {
        let mut counters = RefusalCounters::default();
        let lines: Vec<u64> =
            (0..10).filter_map(|_| counters.add(Refusal::ForeignCertificate)).collect();
        assert_eq!(lines, [1, 2, 4, 8]);
        assert_eq!(counters.count(Refusal::ForeignCertificate), 10);
        assert_eq!(counters.count(Refusal::WrongMember), 0);
    }

    #[test]
    fn failures_of_tls_have_names() {
        use rustls::{AlertDescription, CertificateError, Error};
        for (error, refusal) in [
            (
                Error::InvalidCertificate(CertificateError::UnknownIssuer),
                Refusal::ForeignCertificate,
            ),
            (Error::InvalidCertificate(CertificateError::NotValidForName), Refusal::WrongMember),
            (Error::NoCertificatesPresented, Refusal::NoCertificate),
            (Error::AlertReceived(AlertDescription::UnknownCA), Refusal::OurCertificateRefused),
            (Error::AlertReceived(AlertDescription::DecodeError), Refusal::TlsMalformed),
            (Error::DecryptError, Refusal::TlsMalformed),
        ] {
            assert_eq!(Refusal::of(&error), refusal, "{error:?}");
        }
    }
}
