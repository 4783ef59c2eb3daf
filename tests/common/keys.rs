//! The keys of a client's Child SAs, as charon tells them when asked to.

use holdfast_bed::peer::StrongSwan;
use std::fs;

/// Has charon write the keys of Child SAs into its log.
pub(crate) fn log_keys(client: &StrongSwan) {
    let path = client.log().with_file_name("strongswan.conf");
    let text = fs::read_to_string(&path).expect("charon's configuration");
    let talkative = text.replace("default = 1", "default = 1\n      chd = 4");
    assert_ne!(text, talkative);
    fs::write(&path, talkative).expect("charon's configuration");
    client.control(&["--reload-settings"]).expect("charon reads it again");
}

/// Key and salt of what the client sends: the first initiator's key in charon's log.
pub(crate) fn logged_key(client: &StrongSwan) -> Vec<u8> {
    let log = fs::read_to_string(client.log()).expect("charon's log");
    let (_, rest) = log.split_once("encryption initiator key => ").expect("a logged key");
    let (length, rest) = rest.split_once(" bytes").expect("its length");
    let length: usize = length.parse().expect("a number");
    let rows = rest.lines().skip(1).filter_map(|line| line.split_once("[CHD]"));
    let octets = rows.flat_map(|(_, row)| {
        let (_, row) = row.split_once(": ").expect("a row of a dump");
        let columns = row.get(..48).unwrap_or(row);
        columns.split_whitespace().map(|octet| u8::from_str_radix(octet, 16))
    });
    let key: Vec<u8> = octets.take(length).map(|octet| octet.expect("hexadecimal")).collect();
    assert_eq!(key.len(), length);
    key
}
