//! Lists: a table each, with a sentence where there is nothing to list.

use super::table::{Column, Table};
use super::text::{clean, counted};
use super::time::{duration, rfc3339};
use super::{TERMINAL_COLUMNS, Width, text};
use holdfast_api::{
    ClusterStatus, DropReasons, FlowList, MemberInfo, Named, Role, SaList, Target, TargetList,
};

/// IKE SAs and pairs of Child SAs.
pub(in crate::cli) fn sa_list(list: &SaList, width: Width) -> String {
    let mut ike = Table::new(
        width,
        &[
            Column::Key("IKE SPI"),
            Column::WideText("INITIATOR SPI"),
            Column::Text("CONNECTION"),
            Column::Text("PEER"),
            Column::Text("IDENTITY"),
            Column::Text("STATE"),
            Column::WideText("POLICY"),
            Column::Key("READY"),
        ],
    );
    for sa in &list.ike_sas {
        ike.push([
            format!("{:016x}", sa.responder_spi),
            format!("{:016x}", sa.initiator_spi),
            sa.connection.clone(),
            dash(&sa.peer),
            dash(&sa.identity),
            dash(&sa.state),
            dash(&sa.policy),
            yes_no(sa.takeover_ready),
        ]);
    }
    let children = child_table(list, width);
    let ready = list.child_sas.iter().filter(|sa| sa.takeover_ready).count();
    let summary = format!(
        "{}, {}, {ready} of them ready for a takeover.",
        shown(list.ike_sas.len(), list.ike_sas_total, "IKE SA"),
        shown(list.child_sas.len(), list.child_sas_total, "Child SA"),
    );
    match (list.ike_sas.is_empty(), list.child_sas.is_empty()) {
        (true, true) => "No security associations.".to_owned(),
        (false, true) => format!("{}\n{summary}", ike.render()),
        (true, false) => format!("{children}\n{summary}"),
        (false, false) => format!("{}\n{children}\n{summary}", ike.render()),
    }
}

/// How many are shown, and of how many when those are more.
fn shown(here: usize, total: u64, what: &str) -> String {
    if total > here as u64 {
        format!("the first {here} of {total} {what}s")
    } else {
        counted(here, what)
    }
}

fn child_table(list: &SaList, width: Width) -> String {
    let mut table = Table::new(
        width,
        &[
            Column::Key("SPI IN"),
            Column::Key("SPI OUT"),
            Column::WideText("IKE SPI"),
            Column::Text("CONNECTION"),
            Column::Text("PEER"),
            Column::Text("SUITE"),
            Column::WideText("LOCAL"),
            Column::WideText("REMOTE"),
            Column::WideNumber("GRANTED OUT"),
            Column::WideNumber("FLOOR IN"),
            Column::WideNumber("HORIZON IN"),
            Column::WideText("POLICY"),
            Column::Text("NUMBERS"),
            Column::Key("READY"),
            Column::WideText("WHY"),
        ],
    );
    for sa in &list.child_sas {
        table.push([
            format!("{:08x}", sa.inbound_spi),
            format!("{:08x}", sa.outbound_spi),
            format!("{:016x}", sa.ike_spi),
            sa.connection.clone(),
            sa.peer.clone(),
            sa.suite.clone(),
            sa.local_ts.join(" "),
            sa.remote_ts.join(" "),
            sa.outbound_granted_end.to_string(),
            sa.inbound_floor.to_string(),
            sa.inbound_horizon.to_string(),
            dash(&sa.policy),
            dash(&sa.continuity),
            yes_no(sa.takeover_ready),
            sa.takeover_reason.clone(),
        ]);
    }
    table.render()
}

/// Flows and their targets.
pub(in crate::cli) fn flow_list(list: &FlowList, width: Width) -> String {
    if list.flows.is_empty() {
        return "No flows.".to_owned();
    }
    let mut table = Table::new(
        width,
        &[
            Column::Key("PROTO"),
            Column::Text("SOURCE"),
            Column::Text("DESTINATION"),
            Column::Text("TARGET"),
            Column::Key("WAY"),
            Column::Number("IDLE"),
            Column::Number("WORKER"),
        ],
    );
    for flow in &list.flows {
        table.push([
            flow.protocol.clone(),
            flow.source.clone(),
            flow.destination.clone(),
            dash(&flow.target),
            dash(&flow.way),
            duration(flow.idle_ms),
            flow.worker.to_string(),
        ]);
    }
    let more = if list.truncated { ", and there are more" } else { "" };
    format!("{}\n{}{more}.", table.render(), counted(list.flows.len(), "flow"))
}

/// Targets and how they are.
pub(in crate::cli) fn target_list(list: &TargetList, width: Width) -> String {
    if list.targets.is_empty() {
        return "No targets. Add [[target]] sections to the configuration.".to_owned();
    }
    let mut table = Table::new(
        width,
        &[
            Column::Text("NAME"),
            Column::Key("ADDRESS"),
            Column::Number("WEIGHT"),
            Column::Key("STATE"),
            Column::WideText("MAC"),
            Column::Key("WAY"),
            Column::Text("OWNER"),
            Column::Text("HEALTH"),
            Column::Number("CONNS"),
        ],
    );
    for target in &list.targets {
        let state = match (target.mac.is_empty(), target.draining, target.open) {
            (true, true, _) => "down, draining",
            (true, false, _) => "down",
            (false, true, _) => "draining",
            (false, false, true) => "up",
            (false, false, false) => "closed",
        };
        table.push([
            target.name.clone(),
            target.address.clone(),
            target.weight.to_string(),
            state.to_owned(),
            dash(&target.mac),
            target.delivery.clone(),
            notice(target),
            health(target),
            target.connections.to_string(),
        ]);
    }
    table.render()
}

/// Whether the target knows who owns the common address.
fn notice(target: &Target) -> String {
    match (target.notice.as_str(), target.epoch, target.waiting_ms) {
        ("acknowledged", Some(epoch), _) => format!("epoch {epoch}"),
        ("refused", Some(epoch), _) => format!("refused, knows epoch {epoch}"),
        ("pending", _, Some(waiting_ms)) => format!("not for {}", duration(waiting_ms)),
        ("absent", ..) => dash(""),
        (other, ..) => other.to_owned(),
    }
}

fn health(target: &Target) -> String {
    match (target.healthy, target.load_percent) {
        (Some(healthy), Some(load)) => {
            format!("{}, load {load} %", if healthy { "well" } else { "not well" })
        }
        _ => dash(""),
    }
}

/// The cluster as one member sees it.
pub(in crate::cli) fn cluster_status(cluster: &ClusterStatus, width: Width) -> String {
    let leader = cluster.leader.map_or_else(|| "no leader".into(), |id| format!("leader {id}"));
    let owner = cluster.owner.as_ref().map_or_else(
        || "nobody".to_owned(),
        |owner| {
            let since =
                rfc3339(owner.since_unix_ms).map_or(String::new(), |at| format!(" since {at}"));
            let (member, epoch, incarnation) = (owner.member, owner.epoch, owner.incarnation);
            format!("member {member}{since} (epoch {epoch}, incarnation {incarnation})")
        },
    );
    let mut text = format!(
        "Seen by   member {}, incarnation {}\nOwner     {owner}\nRaft      term {}, {leader}\n\
         Log       committed {}, applied {}\nState     {}\n{}\n{}",
        cluster.member,
        cluster.incarnation,
        cluster.term,
        cluster.commit_index,
        cluster.applied_index,
        clean(&cluster.state_hash),
        succession(cluster),
        member_table(cluster, width),
    );
    if !cluster.change.is_empty() {
        text.push_str(&format!("\nMembers   {}\n", clean(&cluster.change)));
    }
    if !cluster.retired.is_empty() {
        let ids: Vec<String> = cluster.retired.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\nRetired   {}\n", ids.join(", ")));
    }
    if !cluster.refusals.is_empty() {
        let mut table = Table::new(width, &[Column::Number("COUNT"), Column::Text("REFUSED FOR")]);
        for refusal in &cluster.refusals {
            table.push([refusal.count.to_string(), refusal.reason.clone()]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

/// Who should own, and who could.
fn succession(cluster: &ClusterStatus) -> String {
    if cluster.takeback.is_empty() {
        return String::new();
    }
    let order: Vec<String> = cluster.preference.iter().map(ToString::to_string).collect();
    let fitness = cluster.members.iter().filter(|member| !member.witness).map(|member| {
        let said = if member.fitness.is_empty() { "unheard" } else { &member.fitness };
        format!("{} {}", member.member, clean(said))
    });
    let ready = cluster.successors_ready.map_or(String::new(), |ready| {
        format!("Successors  {ready} of the others could take over at once\n")
    });
    format!(
        "Takeback  {}, hold-down {} s, order {}\nFitness   {}\n{ready}",
        clean(&cluster.takeback),
        cluster.hold_down_ms / 1_000,
        order.join(" "),
        fitness.collect::<Vec<_>>().join(", "),
    )
}

fn member_table(cluster: &ClusterStatus, width: Width) -> String {
    let mut table = Table::new(
        width,
        &[
            Column::Number("MEMBER"),
            Column::Key("ROLE"),
            Column::Text("ADDRESS"),
            Column::Key("CONNECTED"),
            Column::Number("MATCHED"),
            Column::Number("BEHIND"),
            Column::Text("RELEASE"),
        ],
    );
    for member in &cluster.members {
        let behind = |matched| cluster.commit_index.saturating_sub(matched);
        let number = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |n| n.to_string());
        let this = if member.this { " (this)" } else { "" };
        table.push([
            member.member.to_string(),
            format!("{}{this}", role_name(member)),
            dash(&member.address),
            yes_no(member.connected),
            number(member.matched_index),
            number(member.matched_index.map(behind)),
            dash(&member.release),
        ]);
    }
    table.render()
}

pub(super) fn role_name(member: &MemberInfo) -> &'static str {
    Role::try_from(member.role).map_or("unknown", Role::name)
}

/// Reasons and their meaning, the most frequent first.
pub(in crate::cli) fn drop_reasons(list: &DropReasons, width: Width) -> String {
    if list.reasons.is_empty() {
        return "No packet was dropped.".to_owned();
    }
    let mut reasons: Vec<_> = list.reasons.iter().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.packets));
    let name_columns = reasons.iter().map(|r| text::columns(&r.name)).max().unwrap_or(0);
    let count_columns = reasons.iter().map(|r| r.packets.to_string().len()).max().unwrap_or(0);
    // A description is a sentence: broken, not cut.
    let indent = count_columns.saturating_add(name_columns).saturating_add(4);
    let room = match width {
        Width::Any => usize::MAX,
        Width::Terminal => TERMINAL_COLUMNS.saturating_sub(indent).max(16),
    };
    let mut shown = String::new();
    for reason in reasons {
        let sentence = text::wrap(&clean(&reason.description), room, usize::MAX);
        let (packets, name) = (reason.packets, clean(&reason.name));
        shown.push_str(&format!("{packets:>count_columns$}  {name:<name_columns$}  "));
        shown.push_str(&sentence.join(&format!("\n{:indent$}", "")));
        shown.push('\n');
    }
    shown
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

fn yes_no(value: bool) -> String {
    if value { "yes".to_owned() } else { "no".to_owned() }
}
