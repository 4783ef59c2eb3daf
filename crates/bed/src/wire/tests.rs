//! Synthetic wires: each finding is produced once and its innocent neighbour not at all.

use super::*;
use crate::frame::samples::{arp, esp, ethernet, ike, ipv4, udp};
use crate::topology::{CLIENT_INNER, CLIENT_OUTER, member_outside_mac, target_address};
use pcap_file::DataLink;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use std::fs::File;
use std::path::Path;
use std::time::Duration;

fn at(ms: u64) -> Wall {
    Wall::default().plus_ms(ms)
}

fn frame(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet([2; 6], 0x0800, &ipv4(from, to, protocol, payload))
}

fn esp_frame(spi: u32, sequence: u32, iv: u64) -> Vec<u8> {
    frame(COMMON, CLIENT_OUTER, 17, &udp(4500, &esp(spi, sequence, iv)))
}

fn ike_frame(exchange: u8, response: bool, message_id: u32) -> Vec<u8> {
    let marked = [&[0; 4], ike(exchange, response, message_id).as_slice()].concat();
    frame(COMMON, CLIENT_OUTER, 17, &udp(4500, &marked))
}

fn announcement(member: u8) -> Vec<u8> {
    let mac = member_outside_mac(member);
    ethernet(mac, 0x0806, &arp(COMMON, COMMON, mac))
}

fn wire(frames: &[(u64, Sender, Vec<u8>)]) -> OutsideWire {
    let mut wire = OutsideWire::default();
    for (ms, sender, bytes) in frames {
        wire.take(at(*ms), *sender, bytes);
    }
    wire.sort();
    wire
}

const FIRST: Sender = Sender::Member(1);
const SECOND: Sender = Sender::Member(2);

#[test]
fn a_repeated_number_is_found_across_members_and_another_spi_is_innocent() {
    let wire = wire(&[
        (1, FIRST, esp_frame(7, 1, 1)),
        (2, FIRST, esp_frame(8, 1, 1)),
        (3, SECOND, esp_frame(7, 1, 2)),
    ]);
    assert_eq!((wire.repeats.duplicate_numbers, wire.repeats.duplicate_ivs), (1, 0));
}

#[test]
fn a_repeated_iv_is_found_even_under_a_new_number() {
    let wire = wire(&[(1, FIRST, esp_frame(7, 1, 9)), (2, SECOND, esp_frame(7, 2, 9))]);
    assert_eq!((wire.repeats.duplicate_numbers, wire.repeats.duplicate_ivs), (0, 1));
}

#[test]
fn ike_of_a_member_counts_against_it_before_its_announcement_and_after_the_next() {
    let wire = wire(&[
        (1, SECOND, ike_frame(Ike::INFORMATIONAL, false, 0)),
        (10, FIRST, announcement(1)),
        (11, FIRST, ike_frame(Ike::INFORMATIONAL, true, 1)),
        (20, SECOND, announcement(2)),
        (21, SECOND, ike_frame(Ike::INFORMATIONAL, true, 2)),
        (22, FIRST, ike_frame(Ike::INFORMATIONAL, true, 3)),
        (23, Sender::Client, ike_frame(Ike::INFORMATIONAL, false, 4)),
    ]);
    assert_eq!(wire.ike_from_non_owner(), 2);
    assert_eq!(wire.owner_at(at(15)), Some(1));
    assert_eq!(wire.ownership().iter().map(|a| a.member).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn esp_of_a_former_owner_is_found() {
    let wire = wire(&[
        (10, FIRST, announcement(1)),
        (11, FIRST, esp_frame(7, 1, 1)),
        (20, SECOND, announcement(2)),
        (21, FIRST, esp_frame(7, 2, 2)),
        (22, SECOND, esp_frame(7, 3, 3)),
    ]);
    assert_eq!(wire.esp_from_non_owner(), 1);
    assert_eq!(wire.first_esp_after(2, at(15)), Some(at(22)));
}

#[test]
fn what_a_member_passes_on_to_another_is_not_its_own() {
    let sealed = esp_frame(7, 1, 1);
    let mut passed_on = sealed.clone();
    passed_on[..6].copy_from_slice(&member_outside_mac(2));
    let wire = wire(&[(1, Sender::Client, sealed), (2, FIRST, passed_on)]);
    assert_eq!(
        (wire.passed_on, wire.repeats.duplicate_numbers, wire.esp_of_member.len()),
        (1, 0, 0)
    );
}

#[test]
fn negotiations_count_exchanges_in_the_window_and_retransmissions_once() {
    let wire = wire(&[
        (5, Sender::Client, ike_frame(Ike::SA_INIT, false, 0)),
        (15, Sender::Client, ike_frame(Ike::SA_INIT, false, 0)),
        (16, Sender::Client, ike_frame(Ike::SA_INIT, false, 0)),
        (17, FIRST, ike_frame(Ike::SA_INIT, true, 0)),
        (18, Sender::Client, ike_frame(Ike::AUTH, false, 1)),
        (19, Sender::Client, ike_frame(Ike::CREATE_CHILD_SA, false, 2)),
    ]);
    assert_eq!(wire.negotiations(at(10), at(100)), 2);
    assert_eq!(wire.negotiations(at(50), at(100)), 0);
}

#[test]
fn renewals_are_requests_of_that_member_only() {
    let wire = wire(&[
        (10, SECOND, ike_frame(Ike::CREATE_CHILD_SA, false, 0)),
        (12, SECOND, ike_frame(Ike::CREATE_CHILD_SA, false, 0)),
        (13, SECOND, ike_frame(Ike::CREATE_CHILD_SA, true, 5)),
        (14, Sender::Client, ike_frame(Ike::CREATE_CHILD_SA, false, 6)),
        (15, SECOND, ike_frame(Ike::CREATE_CHILD_SA, false, 1)),
    ]);
    assert_eq!(wire.renewals(2, at(0), at(100)), 2);
    assert_eq!(wire.renewals(1, at(0), at(100)), 0);
}

#[test]
fn clear_packets_are_inner_addresses_and_bare_services() {
    let tcp = [0u8; 20];
    let wire = wire(&[
        (1, Sender::Client, frame(CLIENT_INNER, COMMON, 6, &tcp)),
        (2, Sender::Client, frame(CLIENT_OUTER, COMMON, 17, &udp(7, &[0]))),
        (3, Sender::Client, frame(CLIENT_OUTER, COMMON, 1, &[8, 0])),
        (4, FIRST, esp_frame(7, 1, 1)),
        (5, FIRST, ike_frame(Ike::AUTH, true, 1)),
    ]);
    assert_eq!(wire.clear_packets, 2);
}

#[test]
fn a_target_on_the_outside_wire_is_found_by_port_and_by_address() {
    let wire = wire(&[
        (1, Sender::Target(1), frame(COMMON, CLIENT_OUTER, 6, &[0; 20])),
        (2, FIRST, frame(target_address(2), CLIENT_OUTER, 1, &[8, 0])),
        (3, Sender::Client, frame(COMMON, CLIENT_OUTER, 1, &[8, 0])),
        (4, FIRST, esp_frame(7, 1, 1)),
    ]);
    assert_eq!(wire.target_packets, 3);
}

#[test]
fn answers_around_the_members_are_found() {
    let mut inside = InsideWire::default();
    let mut answer = frame(COMMON, CLIENT_INNER, 6, &[0; 20]);
    inside.take(Sender::Target(1), &answer, 3);
    answer[..6].copy_from_slice(&member_inside_mac(3));
    inside.take(Sender::Target(2), &answer, 3);
    assert_eq!((inside.answers, inside.answers_around_members), (2, 1));
    assert_eq!(inside.answers_of_target, BTreeMap::from([(1, 1), (2, 1)]));
}

fn write_pcap(path: &Path, link: DataLink, packets: &[(u64, Vec<u8>)]) -> CaptureFile {
    let header = PcapHeader { datalink: link, ..PcapHeader::default() };
    let file = File::create(path).expect("a file");
    let mut writer = PcapWriter::with_header(file, header).expect("a header");
    for (ms, bytes) in packets {
        let length = u32::try_from(bytes.len()).expect("short");
        let packet = PcapPacket::new(Duration::from_millis(*ms), length, bytes);
        writer.write_packet(&packet).expect("a packet");
    }
    CaptureFile { path: path.to_owned(), dropped_frames: 0 }
}

#[test]
fn files_of_several_ports_become_one_wire_in_order_of_time() {
    let folder = tempfile::tempdir().expect("a folder");
    let tap = |sender, name: &str, packets: &[(u64, Vec<u8>)]| Tap {
        sender,
        file: write_pcap(&folder.path().join(name), DataLink::ETHERNET, packets),
    };
    let taps = [
        tap(SECOND, "m2.pcap", &[(20, announcement(2)), (30, esp_frame(7, 2, 2))]),
        tap(FIRST, "m1.pcap", &[(10, announcement(1)), (11, esp_frame(7, 1, 1))]),
    ];
    let wire = OutsideWire::read(&taps).expect("readable");
    assert_eq!(wire.ownership().iter().map(|a| a.member).collect::<Vec<_>>(), [1, 2]);
    assert_eq!((wire.frames, wire.esp_from_non_owner(), wire.repeats.duplicate_numbers), (4, 0, 0));
}

#[test]
fn resets_are_counted_on_the_tunnel_device() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut segment = [0u8; 20];
    let plain = ipv4(COMMON, CLIENT_INNER, 6, &segment);
    segment[13] = 4;
    let reset = ipv4(COMMON, CLIENT_INNER, 6, &segment);
    let file =
        write_pcap(&folder.path().join("tun.pcap"), DataLink::RAW, &[(1, plain), (2, reset)]);
    assert_eq!(tcp_resets(&file).expect("readable"), 1);
}

#[test]
fn a_cut_capture_is_an_error_and_not_a_clean_bill() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cut.pcap");
    let file = write_pcap(&path, DataLink::ETHERNET, &[(1, announcement(1))]);
    let bytes = std::fs::read(&path).expect("the file");
    std::fs::write(&path, &bytes[..bytes.len() - 5]).expect("cut");
    assert!(OutsideWire::read(&[Tap { sender: FIRST, file }]).is_err());
}
