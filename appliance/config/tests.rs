use super::*;
use holdfast_datapath::DontFragment;
use std::fs;
use std::os::unix::fs::PermissionsExt;

const EXAMPLE: &str = include_str!("example.toml");

/// The example with its key in place, as it would lie in `folder`.
fn example_in(folder: &Path) -> String {
    let key = folder.join("road.psk");
    fs::write(&key, "swordfish-swordfish\n").unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    EXAMPLE.to_owned()
}

fn example() -> String {
    EXAMPLE.replace("psk_file = \"road.psk\"", "psk = \"swordfish-swordfish\"")
}

/// The problems of the example after `from` in it became `to`.
fn problems_after(from: &str, to: &str) -> Vec<String> {
    let text = example();
    assert!(text.contains(from), "the example does not contain {from:?}");
    match Config::parse(&text.replacen(from, to, 1), Path::new("/etc/holdfast")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_example_is_sound() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::parse(&example_in(folder.path()), folder.path()).unwrap();
    assert_eq!(config.member.id, 1);
    assert_eq!(config.cluster.members.len(), 3);
    assert_eq!(config.own_address(), Some("10.99.0.1:7000".parse().unwrap()));
    assert_eq!(config.connections[0].psk.as_bytes(), b"swordfish-swordfish");
    assert_eq!(config.connections[0].liveness_s, Some(30));
    assert_eq!(config.connections[0].remote_id, Some(Identity::Email("client@example.org".into())));
    assert_eq!(config.ike.local_id, Identity::Ipv4([198, 51, 100, 100].into()));
    assert_eq!(config.targets[1].weight, 1);
    assert_ne!(config.targets[0].id(), config.targets[1].id());
}

#[test]
fn a_takeover_policy_is_read() {
    let text = example()
        .replace("takeback = \"never\"", "takeback = \"idle\"")
        .replace("hold_down_s = 60", "hold_down_s = 5")
        .replace("preference = 0", "preference = 9");
    let config = Config::parse(&text, Path::new("/etc/holdfast")).unwrap();
    let takeback = Takeback::Idle;
    assert_eq!(config.takeover, Takeover { takeback, hold_down_s: 5, idle_s: 10 });
    assert_eq!(config.cluster.members.iter().map(|m| m.preference).collect::<Vec<_>>(), [9, 0, 0]);
}

#[test]
fn rules_of_the_tunnel_are_read() {
    let text = example()
        .replace("dscp = \"copy\"", "dscp = 46")
        .replace("ecn = true", "ecn = false")
        .replace("dont_fragment = \"copy\"", "dont_fragment = \"set\"")
        .replace("clamp_segment_size = true", "clamp_segment_size = false");
    let config = Config::parse(&text, Path::new("/etc/holdfast")).unwrap();
    let dont_fragment = DontFragment::Set;
    let expected =
        TunnelRules { dscp: Some(46), ecn: false, dont_fragment, clamp_segment_size: false };
    assert_eq!(config.tunnel, expected);
}

#[test]
fn what_may_be_left_out_may_be_left_out() {
    let shortened: Vec<&str> =
        EXAMPLE.lines().filter(|line| !line.ends_with("default") || line.contains("=")).collect();
    let required: Vec<&str> =
        shortened.into_iter().filter(|line| !line.contains("# default")).collect();
    let text = required.join("\n").replace("psk_file = \"road.psk\"", "psk = \"x\"");
    let config = Config::parse(&text, Path::new("/etc/holdfast")).unwrap();
    assert_eq!(config.addresses.service, [config.addresses.common]);
    assert_eq!(config.connections[0].local_ts, [Prefix::host(config.addresses.common)]);
    assert_eq!(config.cluster.timing, Timing::Default);
    assert_eq!(config.dpdk.idle, Idle::Adaptive);
    assert_eq!(config.dpdk.aead, None);
}

#[test]
fn targets_that_run_holdfast_target_need_a_place_to_come_to() {
    let listen = "[targets]                                  # where holdfast-target comes to; left out: \
                  nobody listens\nlisten = \"10.99.0.1:7001\"\n";
    for (from, to) in [
        ("delivery = \"clear\"", "delivery = \"marked\""),
        ("weight_by_load = false", "weight_by_load = true"),
    ] {
        assert_eq!(problems_after(from, to), Vec::<String>::new());
        let text = example().replacen(from, to, 1).replacen(listen, "", 1);
        let problems = Config::parse(&text, Path::new("/etc/holdfast")).unwrap_err();
        assert!(problems[0].what.contains("\"web1\" needs holdfast-target"), "{problems:?}");
    }
    let same = problems_after("listen = \"10.99.0.1:7001\"", "listen = \"10.99.0.1:7000\"");
    assert!(same[0].contains("is the members' own address"), "{same:?}");
    let config = Config::parse(&example(), Path::new("/etc/holdfast")).unwrap();
    assert_eq!(config.notice_address, Some("10.99.0.1:7001".parse().unwrap()));
}

#[test]
fn a_target_on_a_members_host_is_marked_and_has_a_way_to_it() {
    let local = "[local]\ndevice = \"net_af_packet2,iface=hf1\"\ninterface = \"hf0\"\n";
    let with = |target: &str, local: &str| {
        let text = example().replacen("delivery = \"clear\"", target, 1);
        let text = text.replacen("[dpdk]", &format!("{local}\n[dpdk]"), 1);
        match Config::parse(&text, Path::new("/etc/holdfast")) {
            Ok(config) => Ok((config.local, config.targets[0].member)),
            Err(problems) => Err(problems.iter().map(ToString::to_string).collect::<String>()),
        }
    };
    let (own, other) = ("delivery = \"marked\"\nmember = 1", "delivery = \"marked\"\nmember = 2");
    let (found, member) = with(own, local).unwrap();
    assert_eq!((found.unwrap().interface, member), ("hf0".to_owned(), Some(1)));
    assert_eq!(with(other, "").unwrap(), (None, Some(2)), "on another member's host");
    for (target, local, expected) in [
        (own, "", "there is no way to it; add [local]"),
        (other, local, "[local] leads to a target on this host, but none is"),
        ("member = 2", "", "takes clear packets; set delivery = \"marked\""),
        ("delivery = \"marked\"\nmember = 9", "", "there is no member 9"),
        (own, &local.replace("hf0", "hf0; rm"), "is not a device such as"),
    ] {
        let problems = with(target, local).unwrap_err();
        assert!(problems.contains(expected), "{expected}: {problems}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_key() {
    let line_of =
        |needle: &str| 1 + example().lines().position(|line| line.contains(needle)).unwrap();
    for (from, to, section, suggestion) in [
        ("data_dir =", "datadir =", "[member]", "did you mean \"data_dir\"?"),
        ("timing =", "timings =", "[cluster]", "did you mean \"timing\"?"),
        (
            "address = \"10.99.0.1",
            "adress = \"10.99.0.1",
            "[[cluster.member]]",
            "did you mean \"address\"?",
        ),
        (
            "outside_gateway =",
            "outside_gatway =",
            "[addresses]",
            "did you mean \"outside_gateway\"?",
        ),
        ("hold_down_s =", "holddown_s =", "[takeover]", "did you mean \"hold_down_s\"?"),
        ("memory_mb =", "memory =", "[dpdk]", "did you mean \"memory_mb\"?"),
        ("local_id =", "localid =", "[ike]", "did you mean \"local_id\"?"),
        ("remote_ts =", "remote_tss =", "[[connection]]", "did you mean \"remote_ts\"?"),
        ("weight = 1", "wieght = 1", "[[target]]", "did you mean \"weight\"?"),
        ("format = \"text\"", "fromat = \"text\"", "[log]", "did you mean \"format\"?"),
        ("[log]", "[logs]", "the file", "did you mean \"log\"?"),
        (
            "idle = \"adaptive\"",
            "xyzzy = \"adaptive\"",
            "[dpdk]",
            "known are hugepages, memory_mb, cpus, idle, aead",
        ),
    ] {
        let problems = problems_after(from, to);
        let wrong = to.split(' ').next().unwrap().trim_matches(['[', ']']);
        let column = 1 + usize::from(to.starts_with('['));
        let expected = format!(
            "{}:{column}: unknown key {wrong:?} in {section}; {suggestion}",
            line_of(from),
        );
        assert!(problems.contains(&expected), "{expected}\nnot in {problems:#?}");
    }
}

#[test]
fn values_that_cannot_be_are_refused() {
    for (from, to, expected) in [
        ("id = 1  ", "id = 0  ", "id: must be a whole number from 1"),
        ("id = 1  ", "id = \"1\"", "id: must be a whole number"),
        (
            "timing = \"default\"",
            "timing = \"fast\"",
            "must be \"default\" or \"relaxed\" or \"brisk\"",
        ),
        ("takeback = \"never\"", "takeback = \"maybe\"", "\"never\" or \"idle\" or \"now\""),
        ("dscp = \"copy\"", "dscp = 64", "must be a whole number from 0 to 63, or \"copy\""),
        ("hold_down_s = 60", "hold_down_s = 0", "must be a whole number from 1"),
        ("idle_s = 10", "idle_s = \"10\"", "idle_s: must be a whole number"),
        ("preference = 0", "preference = 256", "preference: must be a whole number from 0 to 255"),
        ("inside = \"192.0.2.100\"", "inside = \"192.0.2.300\"", "is not an IPv4 address"),
        (
            "outside_prefix = \"198.51.100.0/24\"",
            "outside_prefix = \"198.51.100.1/24\"",
            "198.51.100.0/24 is meant?",
        ),
        (
            "address = \"10.99.0.2:7000\"",
            "address = \"10.99.0.2\"",
            "is not an address with a port",
        ),
        (
            "policy = \"renew\"",
            "policy = \"rekey\"",
            "must be \"renew\" or \"sync\" or \"strict\" or \"reestablish\"",
        ),
        ("esn = \"allow\"", "esp_proposals = [\"rot13\"]", "rot13"),
        ("esn = \"allow\"", "ike_proposals = [\"aes256gcm16\"]", "pseudorandom function"),
        ("level = \"info\"", "level = \"in=fo=\"", "is not a level"),
        ("psk = \"swordfish-swordfish\"", "", "no key is given; give either psk or psk_file"),
        (
            "psk = \"swordfish-swordfish\"",
            "psk = \"a\"\npsk_file = \"b\"",
            "both psk and psk_file are given",
        ),
        ("name = \"web2\"", "name = 2", "name: must be a text in quotes"),
        ("name = \"web2\"", "", "[[target]] lacks the key \"name\""),
    ] {
        let problems = problems_after(from, to);
        assert!(problems.iter().any(|p| p.contains(expected)), "{expected}\nnot in {problems:#?}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused_with_a_remedy() {
    for (from, to, expected) in [
        ("id = 1  ", "id = 9  ", "member 9 is not in the list of members; add it"),
        ("id = 2\n", "id = 3\n", "member id 3 is given twice"),
        ("common = \"198.51.100.100\"", "common = \"203.0.113.1\"", "is not within outside_prefix"),
        ("inside = \"192.0.2.100\"", "inside = \"10.0.0.1\"", "is not within inside_prefix"),
        (
            "outside_gateway = \"198.51.100.1\"",
            "outside_gateway = \"198.51.100.100\"",
            "must be another address",
        ),
        (
            "address = \"192.0.2.12\"",
            "address = \"192.0.2.11\"",
            "target address 192.0.2.11 is given twice",
        ),
        (
            "address = \"192.0.2.12\"",
            "address = \"192.0.3.12\"",
            "192.0.3.12 is not within inside_prefix",
        ),
        ("address = \"192.0.2.12\"", "address = \"192.0.2.100\"", "has the inside address itself"),
        ("name = \"web2\"", "name = \"web1\"", "target name web1 is given twice"),
        (
            "net_af_packet1,iface=in0",
            "net_af_packet0,iface=out0",
            "both sides name the same device",
        ),
        ("queues = 1   ", "queues = 2   ", "a worker serves one of each; make them equal"),
        ("service = [", "service = [\"198.51.100.1\", ", "more than one service address"),
        ("queues = 1   ", "queues = 3   ", "a power of two is needed"),
        ("remote_ts = [\"10.77.0.0/16\"]", "remote_ts = []", "remote_ts is empty"),
        ("[[cluster.member]]\nid = 3\naddress = \"10.99.0.3:7000\"", "", "add a third"),
    ] {
        let problems = problems_after(from, to);
        assert!(problems.iter().any(|p| p.contains(expected)), "{expected}\nnot in {problems:#?}");
    }
}

#[test]
fn every_problem_is_reported_at_once_in_the_order_of_the_file() {
    let text = example().replace("timing =", "timng =").replace("weight = 1", "weight = 1000");
    let problems = Config::parse(&text, Path::new("/")).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].line < problems[1].line);
}

#[test]
fn a_missing_section_is_named() {
    let problems = Config::parse("", Path::new("/")).unwrap_err();
    let whats: Vec<_> = problems.iter().map(|p| p.what.as_str()).collect();
    for section in ["member", "cluster", "addresses", "outside", "inside"] {
        let expected = format!("the section [{section}] is missing");
        assert!(whats.contains(&expected.as_str()), "{expected} not in {whats:?}");
    }
}

#[test]
fn no_message_and_no_debug_output_contains_a_key() {
    // The key stands in the very line that is wrong.
    for to in [
        "psk = \"swordfish-swordfish\" oops",
        "psk = \"swordfish-swordfish\", 1",
        "psk = [\"swordfish-swordfish\"]",
    ] {
        let problems = problems_after("psk = \"swordfish-swordfish\"", to);
        assert!(!problems.is_empty());
        assert!(!format!("{problems:?}").contains("swordfish"), "{problems:?}");
    }
    let config = Config::parse(&example(), Path::new("/")).unwrap();
    assert!(!format!("{config:?}").contains("swordfish"));
}

#[test]
fn a_key_file_that_others_may_read_is_refused_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let text = example_in(folder.path());
    let key = folder.path().join("road.psk");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let problems = Config::parse(&text, folder.path()).unwrap_err();
    assert!(problems[0].what.contains("chmod 600"), "{problems:?}");
}

#[test]
fn a_file_is_loaded_with_paths_relative_to_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("holdfast.toml");
    fs::write(&file, example_in(folder.path())).unwrap();
    assert!(Config::load(&file).is_ok());

    fs::write(&file, "[member]\nidd = 1\n").unwrap();
    let report = Config::load(&file).unwrap_err().to_string();
    let first =
        format!("{}:2:1: unknown key \"idd\" in [member]; did you mean \"id\"?", file.display());
    assert!(report.contains(&first), "{report}");

    let missing = Config::load(&folder.path().join("nowhere.toml")).unwrap_err().to_string();
    assert!(missing.contains("nowhere.toml"));
}

/// A witness's whole file.
const WITNESS: &str = "\
[member]
id = 3
role = \"witness\"
data_dir = \"/var/lib/holdfast\"

[cluster]
timing = \"brisk\"
ca = \"ca.pem\"
certificate = \"member-3.pem\"
key = \"member-3.key\"
member = [
  { id = 1, address = \"10.99.0.1:7000\" },
  { id = 2, address = \"10.99.0.2:7000\" },
  { id = 3, address = \"10.99.0.3:7000\", role = \"witness\" },
]
";

fn witness_problems(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("/etc/holdfast")) {
        Ok(_) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn a_witness_needs_nothing_but_its_cluster() {
    let config = Config::parse(WITNESS, Path::new("/etc/holdfast")).unwrap();
    assert!(config.is_witness());
    assert_eq!(config.cluster.timing, Timing::Brisk);
    assert_eq!(config.cluster.members[2].role, Role::Witness);
}

#[test]
fn a_witness_with_ports_or_of_two_minds_is_refused() {
    let with_port = format!("{WITNESS}\n[outside]\ndevice = \"net_null0\"\n");
    let problems = witness_problems(&with_port);
    assert!(
        problems.iter().any(|p| p.contains("a witness has no section [outside]")),
        "{problems:?}"
    );
    let elsewhere = WITNESS.replace(", role = \"witness\" }", " }");
    let problems = witness_problems(&elsewhere);
    assert!(problems.iter().any(|p| p.contains("has another role in the list")), "{problems:?}");
    let all = WITNESS.replace(":7000\" }", ":7000\", role = \"witness\" }");
    let problems = witness_problems(&all);
    assert!(problems.iter().any(|p| p.contains("every member is a witness")), "{problems:?}");
}
