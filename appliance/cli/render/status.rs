//! The state of a member and its cluster on one screen.
//!
//! However many SAs, targets or problems there are, the sheet has at most [`LINES_MAX`] lines of
//! [`TERMINAL_COLUMNS`]: every field has a limit, and the limits add up to it.

use super::TERMINAL_COLUMNS;
use super::lists::role_name;
use super::text::{clean, counted, fit, some_of, wrap};
use super::time::{duration, rfc3339};
use holdfast_api::{ClusterStatus, Health, Named, Ownership, Role, Status};
use std::collections::BTreeMap;

/// A terminal has 24 lines, and the prompt needs one.
pub(in crate::cli) const LINES_MAX: usize = 23;

const LABEL_COLUMNS: usize = 16;
const VALUE_COLUMNS: usize = TERMINAL_COLUMNS - LABEL_COLUMNS;

// Lines of each field. Title, one empty line and the count of further problems come on top; they
// add up to LINES_MAX.
const OWNER_LINES: usize = 2;
const THIS_LINES: usize = 1;
const CLUSTER_LINES: usize = 1;
const MEMBER_LINES: usize = 3;
const LOG_LINES: usize = 1;
const SA_LINES: usize = 3;
const TARGET_LINES: usize = 2;
const PORT_LINES: usize = 1;
const DROP_LINES: usize = 1;
const PROBLEMS_SHOWN: usize = 2;
const ACTION_LINES: usize = 3;

const _: () = assert!(
    LINES_MAX
        == 3 + OWNER_LINES
            + THIS_LINES
            + CLUSTER_LINES
            + MEMBER_LINES
            + LOG_LINES
            + SA_LINES
            + TARGET_LINES
            + PORT_LINES
            + DROP_LINES
            + PROBLEMS_SHOWN
            + ACTION_LINES
);

/// The sheet.
pub(in crate::cli) fn status(status: &Status) -> String {
    let mut sheet = Sheet::default();
    sheet.title(status);
    sheet.field("Common address", &common_address(status), OWNER_LINES);
    sheet.field("This member", &this_member(status), THIS_LINES);
    if let Some(cluster) = &status.cluster {
        sheet.field("Cluster", &cluster_line(cluster), CLUSTER_LINES);
        sheet.field("", &members(cluster), MEMBER_LINES);
        sheet.field("Replication", &replication(cluster), LOG_LINES);
    }
    sheet.security_associations(status);
    sheet.targets(status);
    sheet.field("Ports", &ports(status), PORT_LINES);
    sheet.field("Drops", &drops(status), DROP_LINES);
    sheet.problems(status);
    sheet.lines.join("\n")
}

#[derive(Debug, Default)]
struct Sheet {
    lines: Vec<String>,
}

impl Sheet {
    fn title(&mut self, status: &Status) {
        let health = Health::try_from(status.health).map_or("unknown", Health::name);
        let member = status.cluster.as_ref().map_or(0, |cluster| cluster.member);
        let version = clean(&status.version);
        let health = health.to_uppercase();
        let mut title = format!("{health}  member {member}, Holdfast {version}");
        if !status.aead.is_empty() {
            title.push_str(&format!(", AES-GCM {}", clean(&status.aead)));
        }
        self.lines.push(fit(&title, TERMINAL_COLUMNS));
    }

    /// A labelled value, broken into at most `lines_max` lines.
    fn field(&mut self, label: &str, value: &str, lines_max: usize) {
        let mut label = label;
        for line in wrap(value, VALUE_COLUMNS, lines_max) {
            self.lines.push(format!("{label:<LABEL_COLUMNS$}{line}").trim_end().to_owned());
            label = "";
        }
    }

    fn security_associations(&mut self, status: &Status) {
        let not_ready: Vec<_> = status.child_sas.iter().filter(|sa| !sa.takeover_ready).collect();
        let ready = status.child_sas.len().saturating_sub(not_ready.len());
        let ike_sas = usize::try_from(status.ike_sas).unwrap_or(usize::MAX);
        let summary = format!(
            "{}, {}, {ready} ready for a takeover",
            counted(ike_sas, "IKE SA"),
            counted(status.child_sas.len(), "Child SA"),
        );
        let summary = format!("{summary}{}", policies(status));
        self.field("SAs", &fit(&summary, VALUE_COLUMNS), 1);
        let Some(first) = not_ready.first() else { return };
        let spis: Vec<String> =
            not_ready.iter().map(|sa| format!("{:08x}", sa.inbound_spi)).collect();
        const NOT_READY: &str = "not ready: ";
        let list = some_of(&spis, VALUE_COLUMNS.saturating_sub(NOT_READY.len()));
        self.field("", &format!("{NOT_READY}{list}"), 1);
        self.field("", &clean(&first.takeover_reason), 1);
    }

    fn targets(&mut self, status: &Status) {
        let name = |target: &holdfast_api::Target| clean(&target.name);
        let down: Vec<_> =
            status.targets.iter().filter(|target| target.mac.is_empty()).map(name).collect();
        let draining: Vec<_> =
            status.targets.iter().filter(|target| target.draining).map(name).collect();
        let up = status.targets.len().saturating_sub(down.len());
        let mut line = format!("{up} of {} up", status.targets.len());
        if !draining.is_empty() {
            line.push_str(", draining: ");
            line.push_str(&some_of(&draining, VALUE_COLUMNS.saturating_sub(line.len())));
        }
        self.field("Targets", &fit(&line, VALUE_COLUMNS), 1);
        if !down.is_empty() {
            const DOWN: &str = "down: ";
            let list = some_of(&down, VALUE_COLUMNS.saturating_sub(DOWN.len()));
            self.field("", &format!("{DOWN}{list}"), 1);
        }
    }

    fn problems(&mut self, status: &Status) {
        if status.problems.is_empty() {
            // A member that is not well and cannot say why leaves two places to look at.
            if Health::try_from(status.health) != Ok(Health::Ok) {
                self.lines.push(String::new());
                self.field("NEXT ACTION", "look at `holdfast cluster status` and the log", 1);
            }
            return;
        }
        self.lines.push(String::new());
        for (at, problem) in status.problems.iter().take(PROBLEMS_SHOWN).enumerate() {
            self.field(if at == 0 { "Problem" } else { "" }, &clean(&problem.what), 1);
        }
        let more = status.problems.len().saturating_sub(PROBLEMS_SHOWN);
        if more > 0 {
            self.field("", &format!("and {}", counted(more, "further problem")), 1);
        }
        if let Some(first) = status.problems.first() {
            self.field("NEXT ACTION", &clean(&first.next_action), ACTION_LINES);
        }
    }
}

fn common_address(status: &Status) -> String {
    let address = clean(&status.common_address);
    let owner = status.cluster.as_ref().and_then(|cluster| cluster.owner.as_ref());
    let Some(owner) = owner else { return format!("{address} is owned by nobody") };
    let Ownership { member, incarnation, epoch, since_unix_ms } = owner;
    let held = match *since_unix_ms {
        0 => String::new(),
        since => format!(" for {}", duration(status.now_unix_ms.saturating_sub(since))),
    };
    let since = rfc3339(*since_unix_ms).map_or(String::new(), |at| format!("since {at}, "));
    format!(
        "{address} is owned by member {member}{held}, {since}epoch {epoch}, incarnation {incarnation}"
    )
}

fn this_member(status: &Status) -> String {
    let role = Role::try_from(status.role);
    let name = role.map_or("unknown", Role::name);
    let (ms, tenth) = (status.lease_left_us / 1_000, status.lease_left_us % 1_000 / 100);
    let lease = match (status.lease_left_us, role) {
        (0, Ok(Role::Owner)) => ", NO LEASE: silent".to_owned(),
        (0, _) => String::new(),
        _ => format!(", lease for {ms}.{tenth} ms"),
    };
    let running = status.now_unix_ms.saturating_sub(status.started_unix_ms);
    let incarnation = status.cluster.as_ref().map_or(0, |cluster| cluster.incarnation);
    format!("{name}{lease}, incarnation {incarnation}, running for {}", duration(running))
}

fn cluster_line(cluster: &ClusterStatus) -> String {
    let absent = i32::from(Role::Unreachable);
    let reachable = cluster.members.iter().filter(|member| member.role != absent).count();
    let leader = cluster.leader.map_or_else(|| "NO LEADER".into(), |id| format!("leader {id}"));
    let all = cluster.members.len();
    let takeback = match cluster.takeback.as_str() {
        "" => String::new(),
        word => format!(", takeback {}", clean(word)),
    };
    format!("{reachable} of {all} members reachable, {leader}, term {}{takeback}", cluster.term)
}

fn members(cluster: &ClusterStatus) -> String {
    let each = cluster.members.iter().map(|member| {
        let this = if member.this { " (this)" } else { "" };
        let unfit = !matches!(member.fitness.as_str(), "" | "fit");
        let fitness = if unfit { format!(" ({})", clean(&member.fitness)) } else { String::new() };
        format!("{} {}{this}{fitness}", member.member, role_name(member))
    });
    each.collect::<Vec<_>>().join(", ")
}

fn replication(cluster: &ClusterStatus) -> String {
    let (committed, applied) = (cluster.commit_index, cluster.applied_index);
    let behind = match committed.saturating_sub(applied) {
        0 => String::new(),
        entries => format!(", {entries} to go"),
    };
    format!("{applied} of {committed} committed entries applied{behind}")
}

fn ports(status: &Status) -> String {
    let link = |up: bool| if up { "up" } else { "NO LINK" };
    let inside = clean(&status.inside_address);
    format!("outside {}, inside {} ({inside})", link(status.outside_up), link(status.inside_up))
}

fn drops(status: &Status) -> String {
    let reasons: Vec<String> =
        status.drops.iter().map(|drop| format!("{} {}", drop.packets, clean(&drop.name))).collect();
    if reasons.is_empty() { "none".to_owned() } else { some_of(&reasons, VALUE_COLUMNS) }
}

/// What a new owner does about the Child SAs, and for how many when the policies differ.
fn policies(status: &Status) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for sa in status.child_sas.iter().filter(|sa| !sa.policy.is_empty()) {
        let count = counts.entry(&sa.policy).or_default();
        *count = count.saturating_add(1);
    }
    let names: Vec<String> = match counts.len() {
        0 => return String::new(),
        1 => counts.into_keys().map(clean).collect(),
        _ => counts.iter().map(|(name, count)| format!("{count} {}", clean(name))).collect(),
    };
    format!(" ({})", names.join(", "))
}
