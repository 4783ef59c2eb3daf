//! Certificates of new members, and the override after the loss of a quorum.

use super::answer::{Answer, Fault};
use super::arguments::{ForceArguments, MemberCertificateArguments};
use crate::config::Config;
use crate::pki::{self, PkiError};
use crate::{daemon, store};
use serde_json::json;
use std::fmt::Write;
use std::io::ErrorKind;

/// Makes one more member's certificate.
pub(super) fn certificate(arguments: &MemberCertificateArguments) -> Result<Answer, Fault> {
    let (id, address) = (arguments.member.id, arguments.member.address);
    let files = pki::issue(&arguments.dir, id).map_err(|error| {
        let next_action = match &error {
            PkiError::File { source, .. } if source.kind() == ErrorKind::AlreadyExists => {
                "there is one already; an id is used once in the life of a cluster"
            }
            _ => "name the folder with ca.pem and ca.key that `holdfast cluster init` made",
        };
        Fault::failure(error, next_action)
    })?;
    let mut text = String::new();
    for file in &files {
        let _infallible = writeln!(text, "wrote {}", file.display());
    }
    let _infallible = write!(
        text,
        "\nCopy ca.pem, member-{id}.pem and member-{id}.key to the new member. In its \
         configuration:\n\n[cluster]\njoin = true\n\n[[cluster.member]]\nid = {id}\n\
         address = \"{address}\"\n\n(and the entries of the present members). Then, at the owner:\n\n\
         holdfast cluster add {id}={address}\n"
    );
    Answer::new(text, &json!({ "member": id, "files": files }))
}

/// Makes a stopped survivor the whole cluster.
pub(super) fn force_quorum(arguments: &ForceArguments) -> Result<Answer, Fault> {
    let config = Config::load(&arguments.config).map_err(|error| {
        Fault::failure(error, "correct the file; `holdfast config check` looks again")
    })?;
    if config.member.id != arguments.survivor {
        let message = format!(
            "{} is of member {}, not of member {}",
            arguments.config.display(),
            config.member.id,
            arguments.survivor
        );
        return Err(Fault::failure(message, "name the configuration of the survivor"));
    }
    if config.is_witness() {
        return Err(Fault::failure(
            "a witness cannot be the whole cluster: it owns nothing",
            "force a full member; if only the witness is left, begin a new cluster",
        ));
    }
    let forced = store::force_quorum(&config.member.data_dir, &daemon::replica_config(&config, 0))
        .map_err(|error| {
            Fault::failure(error, "stop holdfastd first; `holdfast store check` looks at the log")
        })?;
    let text = format!(
        "Member {} is the whole cluster from entry {} on (generation {}). Members {:?} are \
         retired. Every SA was dropped.\nStart holdfastd here, then add members under new ids.",
        arguments.survivor, forced.index, forced.generation, forced.retired
    );
    let value = json!({
        "survivor": arguments.survivor,
        "index": forced.index,
        "generation": forced.generation,
        "retired": forced.retired,
    });
    Answer::new(text, &value)
}
