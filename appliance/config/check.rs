//! Checks that look at more than one value.

use super::read::Problems;
use super::sections::Places;
use super::{Addresses, Config, Delivery, Role};
use std::collections::BTreeSet;
use std::fmt::Display;

/// Adds a problem for each contradiction between the values of `config`.
pub(super) fn across_sections(config: &Config, places: &Places, problems: &Problems<'_>) {
    members(config, places, problems);
    if config.is_witness() {
        return;
    }
    addresses(&config.addresses, places, problems);
    ports(config, places, problems);
    connections(config, places, problems);
    targets(config, places, problems);
}

fn members(config: &Config, places: &Places, problems: &Problems<'_>) {
    let members = &config.cluster.members;
    unique(members.iter().map(|m| m.id), &places.members, "member id", problems);
    unique(members.iter().map(|m| m.address), &places.members, "member address", problems);
    if config.own_address().is_none() {
        let what = format!("member {} is not in the list of members", config.member.id);
        problems.add(places.member_id, what, "add it as [[cluster.member]]");
    }
    if members.len() == 2 {
        let offset = places.members.first().copied().unwrap_or_default();
        let what = "of two members neither can go on alone";
        problems.add(offset, what, "add a third; it may be a witness on a small machine");
    }
    let listed = members.iter().find(|member| member.id == config.member.id);
    if listed.is_some_and(|listed| listed.role != config.member.role) {
        let what = format!("member {} has another role in the list of members", config.member.id);
        problems.add(places.member_id, what, "give it the same role in both places");
    }
    if !members.is_empty() && members.iter().all(|member| member.role == Role::Witness) {
        let offset = places.members.first().copied().unwrap_or_default();
        problems.add(offset, "every member is a witness: nobody could own", "");
    }
}

fn addresses(addresses: &Addresses, places: &Places, problems: &Problems<'_>) {
    let at = places.addresses;
    if !addresses.outside_prefix.contains(addresses.common) {
        let what = format!(
            "the common address {} is not within outside_prefix {}",
            addresses.common, addresses.outside_prefix
        );
        problems.add(at, what, "peers' replies could not find it");
    }
    if !addresses.inside_prefix.contains(addresses.inside) {
        let what = format!(
            "the inside address {} is not within inside_prefix {}",
            addresses.inside, addresses.inside_prefix
        );
        problems.add(at, what, "targets could not use it as their route");
    }
    if addresses.service.is_empty() {
        problems.add(at, "service is an empty list", "leave it out to serve the common address");
    }
    if addresses.service.len() > 1 {
        problems.add(at, "more than one service address is not built yet", "name one");
    }
    if let Some(gateway) = addresses.outside_gateway
        && (!addresses.outside_prefix.contains(gateway) || gateway == addresses.common)
    {
        let what = format!(
            "the gateway {gateway} must be another address within {}",
            addresses.outside_prefix
        );
        problems.add(places.gateway, what, "");
    }
}

fn ports(config: &Config, places: &Places, problems: &Problems<'_>) {
    if config.outside.device == config.inside.device {
        problems.add(places.inside_device, "both sides name the same device", "");
    }
    if config.outside.queues != config.inside.queues {
        let what = format!(
            "{} queues outside but {} inside; a worker serves one of each",
            config.outside.queues, config.inside.queues
        );
        problems.add(places.inside_queues, what, "make them equal");
    }
    if !config.outside.queues.is_power_of_two() {
        let what = format!("{} queues; a power of two is needed", config.outside.queues);
        problems.add(places.inside_queues, what, "an SPI's low bits name its worker");
    }
    let (cpus, workers) = (config.dpdk.cpus.len(), usize::from(config.outside.queues));
    if cpus != 0 && cpus < workers {
        let what = format!("{cpus} cpus for {workers} workers");
        problems.add(places.cpus, what, "name one for each worker, or none");
    }
}

fn connections(config: &Config, places: &Places, problems: &Problems<'_>) {
    let at = &places.connections;
    unique(config.connections.iter().map(|c| c.name.as_str()), at, "connection name", problems);
    for (connection, offset) in config.connections.iter().zip(at) {
        for (list, name) in
            [(&connection.local_ts, "local_ts"), (&connection.remote_ts, "remote_ts")]
        {
            if list.is_empty() {
                problems.add(*offset, format!("{name} is empty: nothing could pass"), "");
            }
        }
    }
    if config.connections.is_empty() {
        problems.add(0, "no [[connection]]: no peer could connect", "");
    }
}

fn targets(config: &Config, places: &Places, problems: &Problems<'_>) {
    let at = &places.targets;
    unique(config.targets.iter().map(|t| t.name.as_str()), at, "target name", problems);
    unique(config.targets.iter().map(|t| t.address), at, "target address", problems);
    for (target, offset) in config.targets.iter().zip(at) {
        if !config.addresses.inside_prefix.contains(target.address) {
            let what = format!(
                "target {:?}: {} is not within inside_prefix {}",
                target.name, target.address, config.addresses.inside_prefix
            );
            problems.add(*offset, what, "targets are reached directly, by their MAC address");
        }
        if target.address == config.addresses.inside {
            let what = format!("target {:?} has the inside address itself", target.name);
            problems.add(*offset, what, "");
        }
    }
    for (target, offset) in config.targets.iter().zip(at) {
        let marked = target.delivery == Delivery::Marked;
        if config.notice_address.is_none() && (marked || target.weight_by_load) {
            let what =
                format!("target {:?} needs holdfast-target, but nobody listens", target.name);
            problems.add(*offset, what, "add [targets] with listen");
        }
    }
    member_targets(config, places, problems);
    if config.notice_address.is_some() && config.notice_address == config.own_address() {
        problems.add(
            places.notice,
            "targets.listen is the members' own address",
            "use another port",
        );
    }
    if config.targets.is_empty() {
        problems.add(0, "no [[target]]: nobody would serve", "");
    }
}

/// Targets on members' hosts.
fn member_targets(config: &Config, places: &Places, problems: &Problems<'_>) {
    let mut own = false;
    for (target, offset) in config.targets.iter().zip(&places.targets) {
        let Some(member) = target.member else { continue };
        if !config.cluster.members.iter().any(|peer| peer.id == member) {
            problems.add(*offset, format!("there is no member {member}"), "");
        }
        if target.delivery != Delivery::Marked {
            let what =
                format!("target {:?} is on a member's host and takes clear packets", target.name);
            problems.add(*offset, what, "set delivery = \"marked\"");
        }
        own |= member == config.member.id;
    }
    if own != config.local.is_some() {
        let (what, remedy) = if own {
            ("a target is on this member's host, but there is no way to it", "add [local]")
        } else {
            ("[local] leads to a target on this host, but none is", "set member at that [[target]]")
        };
        problems.add(places.local, what, remedy);
    }
}

/// Adds a problem at the place of each value that stood before.
fn unique<T: Ord + Display>(
    values: impl Iterator<Item = T>,
    places: &[usize],
    name: &str,
    problems: &Problems<'_>,
) {
    let mut seen = BTreeSet::new();
    for (value, offset) in values.zip(places) {
        if seen.contains(&value) {
            problems.add(*offset, format!("{name} {value} is given twice"), "");
        }
        seen.insert(value);
    }
}
