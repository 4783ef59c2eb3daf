//! The command line.

use crate::config::SOCKET_DEFAULT;
use clap::{Args, Parser, Subcommand};
use holdfast_api::{
    ChangeMembers, FlowListRequest, Handover, NewMember, RequestKind, SaListRequest,
    StoreListRequest, TargetListRequest, TargetSet,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

const EXIT_CODES: &str = "\
Exit codes: 0 all is well, 1 it did not work, 2 usage, 3 degraded, 4 only the owner can answer this.";

/// Shows and steers a member of a Holdfast cluster.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version = env!("HOLDFAST_VERSION"), after_help = EXIT_CODES)]
pub struct Arguments {
    /// The member's socket (member.socket in its configuration).
    #[arg(long, global = true, value_name = "PATH", default_value = SOCKET_DEFAULT)]
    pub(super) socket: PathBuf,
    /// Answer in JSON.
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Show every column, however wide.
    #[arg(long, global = true)]
    pub(super) wide: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Who owns the common address, how well things are, and what to do next.
    Status,
    /// Security associations.
    #[command(subcommand)]
    Sa(SaCommand),
    /// Connections and the targets they go to.
    #[command(subcommand)]
    Flow(FlowCommand),
    /// The hosts that serve.
    #[command(subcommand)]
    Target(TargetCommand),
    /// The cluster and its certificates.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Give the common address to another member.
    Handover(HandoverArguments),
    /// Why packets were dropped.
    DropReasons(DropReasonsArguments),
    /// Configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// The common store, and the replicated log on disk.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum SaCommand {
    /// Every IKE SA and every pair of Child SAs.
    List,
}

impl From<SaCommand> for RequestKind {
    fn from(command: SaCommand) -> Self {
        match command {
            SaCommand::List => Self::SaList(SaListRequest {}),
        }
    }
}

#[derive(Debug, Clone, Copy, Subcommand)]
pub(super) enum FlowCommand {
    /// Connections through the tunnels; the owner knows them.
    List {
        /// At most so many.
        #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
        limit: u32,
    },
}

impl From<FlowCommand> for RequestKind {
    fn from(command: FlowCommand) -> Self {
        match command {
            FlowCommand::List { limit } => Self::FlowList(FlowListRequest { limit }),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum TargetCommand {
    /// Every target.
    List,
    /// Give a target no new connections; it keeps those it has.
    Drain {
        /// The target's name.
        name: String,
    },
    /// Give a drained target new connections again.
    Undrain {
        /// The target's name.
        name: String,
    },
    /// Make the certificate with which holdfast-target proves that it is this target.
    Certificate(CertificateArguments),
}

#[derive(Debug, Args)]
pub(super) struct CertificateArguments {
    /// The target's name, as in the members' configuration.
    pub(super) name: String,
    /// The folder that `holdfast cluster init` made; nothing in it is overwritten.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// The cluster's name, which its certificates carry.
    #[arg(long, default_value = "holdfast")]
    pub(super) cluster: String,
}

/// What a command about targets is: a question to the member, or work on files.
pub(super) enum TargetWork {
    Ask(RequestKind),
    Certify(CertificateArguments),
}

impl From<TargetCommand> for TargetWork {
    fn from(command: TargetCommand) -> Self {
        let set = |name, draining| RequestKind::TargetSet(TargetSet { name, draining });
        Self::Ask(match command {
            TargetCommand::List => RequestKind::TargetList(TargetListRequest {}),
            TargetCommand::Drain { name } => set(name, true),
            TargetCommand::Undrain { name } => set(name, false),
            TargetCommand::Certificate(arguments) => return Self::Certify(arguments),
        })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// The members as this one sees them.
    Status,
    /// Make the cluster's certificate authority and a certificate for each member.
    Init(InitArguments),
    /// Make the certificate of one more member, with the authority that `init` made.
    Certificate(MemberCertificateArguments),
    /// Have a member join; ask the owner. Start it with `join = true` in its [cluster] section.
    Add(AddArguments),
    /// Have a member leave for good; ask the owner. Its id is never used again.
    Remove {
        /// The member.
        #[arg(value_name = "ID")]
        member: u64,
    },
    /// Have a member take the place of another one, such as one that lost its disk; ask the owner.
    Replace {
        /// Who leaves.
        #[arg(value_name = "OLD")]
        old: u64,
        #[command(flatten)]
        add: AddArguments,
    },
    /// Give the change of the members up; ask the owner.
    Cancel,
    /// DANGER: make one stopped member the whole cluster, when a majority is lost for good.
    #[command(after_help = FORCE_DANGER)]
    ForceQuorum(ForceArguments),
}

const FORCE_DANGER: &str = "\
Only when a majority of the members is dead and will stay so. If they live, there are two owners of \
the common address from now on, each believing to be alone: nothing can notice that for you. \
Disconnect or destroy the others first.

What happens: the member of --config becomes a cluster of one, with everything its log holds but for \
the SAs: the others may have sent with numbers this member does not know of, so every SA is dropped, \
and peers negotiate anew. The ids of the others are retired; should one come back, it is refused by \
name. Then start holdfastd here, and add new members with `holdfast cluster add` under new ids.";

#[derive(Debug, Args)]
pub(super) struct ForceArguments {
    /// The configuration of the survivor, which must not run.
    #[arg(long, value_name = "FILE")]
    pub(super) config: PathBuf,
    /// The survivor's id, as a check that the file is the one you mean.
    #[arg(long, value_name = "ID")]
    pub(super) survivor: u64,
    /// Confirms that the other members are dead and will stay so.
    #[arg(long, required = true)]
    pub(super) i_know_the_others_are_dead: bool,
}

#[derive(Debug, Args)]
pub(super) struct MemberCertificateArguments {
    /// The folder `holdfast cluster init` wrote to, with ca.pem and ca.key.
    #[arg(long, value_name = "DIR")]
    pub(super) dir: PathBuf,
    /// The member and where it listens for the others.
    #[arg(long = "member", value_name = "ID=ADDRESS:PORT")]
    pub(super) member: NamedMember,
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct AddArguments {
    /// Who joins and where it listens for the others.
    #[arg(value_name = "ID=ADDRESS:PORT")]
    member: NamedMember,
    /// It votes and never owns.
    #[arg(long)]
    witness: bool,
}

impl AddArguments {
    /// The request, with who leaves at the same time.
    pub(super) fn request(self, remove: Option<u64>) -> RequestKind {
        let NamedMember { id, address } = self.member;
        let add = NewMember { member: id, address: address.to_string(), witness: self.witness };
        RequestKind::ChangeMembers(ChangeMembers { add: Some(add), remove })
    }
}

#[derive(Debug, Args)]
pub(super) struct InitArguments {
    /// The folder to make and to write to; nothing in it is overwritten.
    #[arg(long, value_name = "DIR", alias = "out")]
    pub(super) dir: PathBuf,
    /// A member and where it listens for the others; once for each member.
    #[arg(long = "member", value_name = "ID=ADDRESS:PORT", required_unless_present = "members")]
    pub(super) named: Vec<NamedMember>,
    /// Instead: so many members, numbered from 1.
    #[arg(long, value_name = "COUNT", conflicts_with = "named")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MEMBERS_MAX))]
    pub(super) members: Option<u64>,
    /// The cluster's name, which its certificates carry.
    #[arg(long, default_value = "holdfast")]
    pub(super) name: String,
}

const MEMBERS_MAX: u64 = crate::config::MEMBERS_MAX as u64;

/// A member on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NamedMember {
    pub(super) id: u64,
    pub(super) address: SocketAddr,
}

impl std::str::FromStr for NamedMember {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "write ID=ADDRESS:PORT, for example 1=10.0.0.1:7000";
        let (id, address) = text.split_once('=').ok_or_else(|| FORM.to_owned())?;
        let id = id.parse().ok().filter(|id| (1..=u64::from(u32::MAX)).contains(id));
        let id = id.ok_or_else(|| format!("the id is not a number from 1 on; {FORM}"))?;
        let address = address.parse().map_err(|_| format!("no address with a port; {FORM}"))?;
        Ok(Self { id, address })
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct HandoverArguments {
    /// To this member; without it, to the one that is furthest ahead.
    #[arg(long, value_name = "ID")]
    to: Option<u64>,
}

impl From<HandoverArguments> for RequestKind {
    fn from(arguments: HandoverArguments) -> Self {
        Self::Handover(Handover { to: arguments.to })
    }
}

/// Where the counts come from: the member, and its statistics segment when it does not answer.
#[derive(Debug, Args)]
pub(super) struct DropReasonsArguments {
    /// Also reasons that never happened.
    #[arg(long)]
    pub(super) all: bool,
    /// Read the statistics segment of the member with this configuration; the daemon is not asked.
    #[arg(long, value_name = "FILE", conflicts_with = "segment")]
    pub(super) config: Option<PathBuf>,
    /// Read this statistics segment; the daemon is not asked.
    #[arg(long, value_name = "FILE")]
    pub(super) segment: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Tell every problem of a configuration file, with its place.
    Check {
        /// The file.
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
pub(super) struct StoreListArguments {
    /// The common address whose store is meant.
    #[arg(long, alias = "vip", value_name = "ADDRESS")]
    address: Option<Ipv4Addr>,
    /// At most so many SAs.
    #[arg(long, value_name = "COUNT", default_value_t = 1_000)]
    limit: u32,
}

impl From<StoreListArguments> for RequestKind {
    fn from(arguments: StoreListArguments) -> Self {
        let address = arguments.address.map(|address| address.to_string()).unwrap_or_default();
        Self::StoreList(StoreListRequest { address, limit: arguments.limit })
    }
}

#[derive(Debug, Subcommand)]
pub(super) enum StoreCommand {
    /// The records any member holds for a takeover: IKE SA, Child SA, relation, under whom each
    /// stands. Never a key.
    List(StoreListArguments),
    /// Read the log of a member that does not run, and change nothing.
    Check {
        /// The member's data directory.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
}
