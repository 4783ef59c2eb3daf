//! The cluster's own certificate authority and what members prove themselves with.
//!
//! `holdfast cluster init` makes one authority and one certificate per member. Whoever holds a
//! certificate of this authority *is* that member; nothing else admits anybody. `holdfast target
//! certificate` makes one for a target, which is that target and never a member: names of members
//! and of targets cannot be mistaken for each other, and only members' certificates are for servers.
//! The authority's key is needed to add a member or a target and for nothing else: keep it off both.
//!
//! Certificates do not expire in practice. An expiry would stop the cluster at a moment nobody
//! chose; a lost key is answered by a new authority.

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why there are no certificates. The operator or the system is at fault.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not what it is taken for.
    #[error("{path}: {what}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What it is not.
        what: String,
    },
    /// A certificate could not be made.
    #[error("cannot make certificates: {0}")]
    Generate(#[from] rcgen::Error),
    /// No member was named.
    #[error("a cluster needs at least one member")]
    NoMembers,
    /// TLS cannot use what was loaded.
    #[error("the certificates cannot be used: {0}")]
    Tls(String),
}

/// Makes an authority and a certificate for each of `members` in `folder`, which is created.
/// Returns the files, each readable by its owner only.
///
/// # Errors
/// When a file exists already (nothing is overwritten) or cannot be written.
pub fn init(folder: &Path, cluster: &str, members: &[u64]) -> Result<Vec<PathBuf>, PkiError> {
    if members.is_empty() {
        return Err(PkiError::NoMembers);
    }
    fs::create_dir_all(folder)
        .map_err(|source| PkiError::File { path: folder.to_owned(), source })?;
    let authority = Authority::new(cluster)?;
    let mut files = authority.save(folder)?;
    for member in members {
        files.extend(authority.admit(*member)?.save(folder, &format!("member-{member}"))?);
    }
    Ok(files)
}

/// Makes a certificate for the target `name` under the authority that [`init`] left in `folder`.
/// Returns the files, each readable by its owner only.
///
/// # Errors
/// When the authority's files are not there, or the target's are already.
pub fn issue_target(folder: &Path, cluster: &str, name: &str) -> Result<Vec<PathBuf>, PkiError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path)
            .map(zeroize::Zeroizing::new)
            .map_err(|source| PkiError::File { path, source })
    };
    let key = KeyPair::from_pem(&read("ca.key")?)?;
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem")?, key)?;
    let stem = format!("target-{name}");
    admit_target(cluster, &issuer, name)?.save(folder, &stem)
}

fn admit_target(cluster: &str, issuer: &Issuer<'_, KeyPair>, name: &str) -> Result<Pair, PkiError> {
    let key = KeyPair::generate()?;
    let mut parameters = lasting(&format!("Holdfast target {name}"));
    let dns = name_of_target(name);
    let uri = format!("holdfast://{cluster}/{}", dns.trim_end_matches(".holdfast"));
    parameters.subject_alt_names =
        vec![SanType::DnsName(dns.try_into()?), SanType::URI(uri.try_into()?)];
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&key, issuer)?;
    Ok(Pair { certificate, key_pem: key.serialize_pem() })
}

/// Makes a certificate for one more member, with the authority in `folder`.
///
/// # Errors
/// When the authority is not there, or the member has a certificate already.
pub fn issue(folder: &Path, member: u64) -> Result<Vec<PathBuf>, PkiError> {
    let read = |name: &str| -> Result<zeroize::Zeroizing<String>, PkiError> {
        let path = folder.join(name);
        let text = fs::read_to_string(&path).map_err(|source| PkiError::File { path, source })?;
        Ok(zeroize::Zeroizing::new(text))
    };
    let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
    let issuer = Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?;
    admit(&issuer, None, member)?.save(folder, &format!("member-{member}"))
}

struct Authority {
    cluster: String,
    own: Pair,
    issuer: Issuer<'static, KeyPair>,
}

struct Pair {
    certificate: Certificate,
    key_pem: String,
}

impl Authority {
    fn new(cluster: &str) -> Result<Self, PkiError> {
        let key = KeyPair::generate()?;
        let mut parameters = lasting(&format!("Holdfast cluster {cluster}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let own = Pair { certificate: parameters.self_signed(&key)?, key_pem: key.serialize_pem() };
        Ok(Self { cluster: cluster.to_owned(), own, issuer: Issuer::new(parameters, key) })
    }

    fn admit(&self, member: u64) -> Result<Pair, PkiError> {
        admit(&self.issuer, Some(&self.cluster), member)
    }

    fn save(&self, folder: &Path) -> Result<Vec<PathBuf>, PkiError> {
        self.own.save(folder, "ca")
    }
}

/// A certificate for `member`; the cluster's name in it is for people only.
fn admit(
    issuer: &Issuer<'_, KeyPair>,
    cluster: Option<&str>,
    member: u64,
) -> Result<Pair, PkiError> {
    let key = KeyPair::generate()?;
    let mut parameters = lasting(&format!("Holdfast member {member}"));
    parameters.subject_alt_names = vec![SanType::DnsName(name_of(member).try_into()?)];
    if let Some(cluster) = cluster {
        let uri = format!("holdfast://{cluster}/member/{member}");
        parameters.subject_alt_names.push(SanType::URI(uri.try_into()?));
    }
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    parameters.use_authority_key_identifier_extension = true;
    let certificate = parameters.signed_by(&key, issuer)?;
    Ok(Pair { certificate, key_pem: key.serialize_pem() })
}

impl Pair {
    fn save(&self, folder: &Path, stem: &str) -> Result<Vec<PathBuf>, PkiError> {
        let certificate = folder.join(format!("{stem}.pem"));
        let key = folder.join(format!("{stem}.key"));
        write_private(&certificate, self.certificate.pem().as_bytes())?;
        write_private(&key, self.key_pem.as_bytes())?;
        Ok(vec![certificate, key])
    }
}

fn lasting(common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters.not_before = date_time_ymd(2020, 1, 1);
    parameters.not_after = date_time_ymd(2120, 1, 1);
    parameters
}

/// Writes a new file that only its owner may read.
fn write_private(path: &Path, content: &[u8]) -> Result<(), PkiError> {
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(content)?;
        file.sync_all()
    };
    write().map_err(|source| PkiError::File { path: path.to_owned(), source })
}

/// The name in a member's certificate.
fn name_of(member: u64) -> String {
    format!("member-{member}.holdfast")
}

/// The name in a target's certificate: a digest, because an operator's names need not be host names.
fn name_of_target(name: &str) -> String {
    format!("target-{:016x}.holdfast", crate::config::target_id(name))
}

/// What a member or a target proves itself with, and whom it believes.
#[derive(Debug, Clone)]
pub struct Credentials {
    authority: CertificateDer<'static>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

impl Credentials {
    /// Loads the authority's certificate and this member's certificate and key, PEM.
    ///
    /// # Errors
    /// When a file is missing, is not PEM, or certificate and key do not belong together.
    pub fn load(ca: &Path, certificate: &Path, key: &Path) -> Result<Self, PkiError> {
        let authority = load(ca, "an X.509 certificate", CertificateDer::from_pem_slice)?;
        let own = load(certificate, "an X.509 certificate", CertificateDer::from_pem_slice)?;
        let key = load(key, "a private key", PrivateKeyDer::from_pem_slice)?;
        Self::new(authority, own, key)
    }

    fn new(
        authority: CertificateDer<'static>,
        own: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Self, PkiError> {
        let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(|error| tls(&error))?;
        let roots = Arc::new(roots);
        let versions = &[&rustls::version::TLS13];

        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| tls(&error))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![own.clone()], key.clone_key())
            .map_err(|error| tls(&error))?;
        // Resuming would save a millisecond per connection and skip the look at the certificate.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;

        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(|error| tls(&error))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .map_err(|error| tls(&error))?;
        client.resumption = Resumption::disabled();
        Ok(Self { authority, server: Arc::new(server), client: Arc::new(client) })
    }

    /// TLS for connections that arrive.
    #[must_use]
    pub fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// TLS for connections that are made.
    #[must_use]
    pub fn client(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.client)
    }

    /// A number all members of this cluster derive alike and outsiders cannot know: TLS 1.3 shows
    /// the authority's certificate to members and targets only.
    #[must_use]
    pub fn cluster_seed(&self, purpose: &str) -> u64 {
        let digest = holdfast_crypto::PrfAlgorithm::HmacSha256
            .prf(self.authority.as_ref(), &[purpose.as_bytes()]);
        digest.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
    }
}

/// The name to expect in the certificate of `member`.
#[must_use]
pub fn expected_name(member: u64) -> Option<ServerName<'static>> {
    ServerName::try_from(name_of(member)).ok()
}

/// Whether a certificate that the authority signed is the one of `member`.
#[must_use]
pub fn belongs_to(certificate: &CertificateDer<'_>, member: u64) -> bool {
    let Some(name) = expected_name(member) else { return false };
    names(certificate, &name)
}

/// Whether a certificate that the authority signed is the one of the target `name`.
#[must_use]
pub fn belongs_to_target(certificate: &CertificateDer<'_>, name: &str) -> bool {
    ServerName::try_from(name_of_target(name)).is_ok_and(|name| names(certificate, &name))
}

fn names(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, name).is_ok())
}

fn load<T>(
    path: &Path,
    what: &str,
    parse: impl FnOnce(&[u8]) -> Result<T, rustls::pki_types::pem::Error>,
) -> Result<T, PkiError> {
    let file = |source| PkiError::File { path: path.to_owned(), source };
    let bytes = zeroize::Zeroizing::new(fs::read(path).map_err(file)?);
    parse(&bytes)
        .map_err(|_| PkiError::Content { path: path.to_owned(), what: format!("is not {what}") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn load_member(folder: &Path, member: u64) -> Result<Credentials, PkiError> {
        let file = |name: String| folder.join(name);
        Credentials::load(
            &file("ca.pem".into()),
            &file(format!("member-{member}.pem")),
            &file(format!("member-{member}.key")),
        )
    }

    #[test]
    fn what_init_makes_can_be_loaded_and_names_its_member() {
        let folder = tempfile::tempdir().unwrap();
        let files = init(folder.path(), "home", &[1, 2, 3]).unwrap();
        assert_eq!(files.len(), 8);
        for file in &files {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        load_member(folder.path(), 2).unwrap();

        let pem = fs::read(folder.path().join("member-2.pem")).unwrap();
        let certificate = CertificateDer::from_pem_slice(&pem).unwrap();
        assert!(belongs_to(&certificate, 2));
        assert!(!belongs_to(&certificate, 1));
    }

    #[test]
    fn a_member_that_is_admitted_later_has_a_certificate_of_the_same_authority() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "home", &[1, 2, 3]).unwrap();
        let files = issue(folder.path(), 4).unwrap();
        assert_eq!(files.len(), 2);
        load_member(folder.path(), 4).unwrap();
        let pem = fs::read(folder.path().join("member-4.pem")).unwrap();
        assert!(belongs_to(&CertificateDer::from_pem_slice(&pem).unwrap(), 4));
        assert!(matches!(issue(folder.path(), 4), Err(PkiError::File { .. })));
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "home", &[1]).unwrap();
        assert!(matches!(init(folder.path(), "home", &[1]), Err(PkiError::File { .. })));
    }

    #[test]
    fn a_key_of_another_member_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "home", &[1, 2]).unwrap();
        let outcome = Credentials::load(
            &folder.path().join("ca.pem"),
            &folder.path().join("member-1.pem"),
            &folder.path().join("member-2.key"),
        );
        assert!(matches!(outcome, Err(PkiError::Tls(_))));
    }

    #[test]
    fn a_target_is_no_member_and_a_member_no_target() {
        let folder = tempfile::tempdir().unwrap();
        init(folder.path(), "home", &[1]).unwrap();
        let files = issue_target(folder.path(), "home", "web 1").unwrap();
        assert_eq!(fs::metadata(&files[1]).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(issue_target(folder.path(), "home", "web 1").is_err(), "nothing is overwritten");
        let read = |name: &str| {
            let pem = fs::read(folder.path().join(name)).unwrap();
            CertificateDer::from_pem_slice(&pem).unwrap()
        };
        let (member, target) = (read("member-1.pem"), read("target-web 1.pem"));
        assert!(belongs_to_target(&target, "web 1") && !belongs_to_target(&target, "web 2"));
        assert!(!belongs_to(&target, 1) && !belongs_to_target(&member, "web 1"));
    }

    #[test]
    fn members_agree_on_a_seed_and_purposes_and_clusters_differ() {
        let (here, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(here.path(), "home", &[1, 2]).unwrap();
        init(elsewhere.path(), "home", &[1]).unwrap();
        let one = load_member(here.path(), 1).unwrap();
        let two = load_member(here.path(), 2).unwrap();
        let other = load_member(elsewhere.path(), 1).unwrap();
        assert_eq!(one.cluster_seed("flow"), two.cluster_seed("flow"));
        assert_ne!(one.cluster_seed("flow"), one.cluster_seed("maglev"));
        assert_ne!(one.cluster_seed("flow"), other.cluster_seed("flow"));
    }
}
