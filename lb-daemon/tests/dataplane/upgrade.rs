//! Maps as the version before pinned them, taken over: connections go on.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use aya::Pod;
use aya::maps::{Array, HashMap, Map, MapData};
use lb_common::abi::{
    ADDRESS_VIP, AddressFilter, BackendLabel, FARM_REFUSES, FarmEntry, FlowKey, Label, MODE_NAT, MaglevTable,
    map_ipv4,
};
use lb_core::config::model::{Mode, Scheduler};

use crate::packet::*;
use crate::rig::{Rig, farm, port};

// Commands and types of bpf(2), linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_OBJ_PIN: libc::c_long = 6;
const HASH: u32 = 1;
const ARRAY: u32 = 2;
const PERCPU_ARRAY: u32 = 6;
const LRU_HASH: u32 = 9;

/// Makes a map and pins it under its name.
fn make(dir: &Path, name: &str, kind: u32, key: u32, value: u32, entries: u32) {
    let mut attr = [kind, key, value, entries, 0];
    // SAFETY: the first five fields of the attribute for this command; the rest counts as zeros.
    let map = unsafe { libc::syscall(libc::SYS_bpf, BPF_MAP_CREATE, attr.as_mut_ptr(), size_of_val(&attr)) };
    assert!(map >= 0, "{name}: {}", std::io::Error::last_os_error());
    let path = CString::new(dir.join(name).to_str().unwrap()).unwrap();
    let mut attr = [path.as_ptr() as u64, map as u64];
    // SAFETY: a path that ends with a zero, and a descriptor, as the attribute for this command has them.
    let pinned = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, attr.as_mut_ptr(), size_of_val(&attr)) };
    assert_eq!(pinned, 0, "{name}: {}", std::io::Error::last_os_error());
    // SAFETY: it is nobody else's.
    unsafe { libc::close(map as i32) };
}

fn data(dir: &Path, name: &str) -> MapData {
    MapData::from_pin(dir.join(name)).unwrap()
}

fn set<V: Pod>(dir: &Path, name: &str, at: u32, value: V) {
    Array::try_from(Map::Array(data(dir, name))).unwrap().set(at, value, 0).unwrap();
}

fn insert<K: Pod, V: Pod>(dir: &Path, name: &str, key: K, value: V) {
    HashMap::try_from(Map::HashMap(data(dir, name))).unwrap().insert(key, value, 0).unwrap();
}

const VIP: [u8; 4] = [192, 0, 2, 10];
const BACKEND: [u8; 4] = [10, 0, 0, 11];

/// One farm, `web`, on port 80 of the VIP, with one backend; both have number 3, as their table has.
fn former_maps(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for (name, kind, key, value, entries) in [
        ("ADDRESS_FILTER", ARRAY, 4, 8192, 1),
        ("ADDRESSES", HASH, 16, 4, 64),
        ("SERVICES", HASH, 20, 4, 64),
        ("FARMS", ARRAY, 4, 8, 512),
        ("FARM_LABELS", ARRAY, 4, 64, 512),
        ("MAGLEV", ARRAY, 4, 32768, 576),
        ("BACKENDS", ARRAY, 4, 64, 16384),
        ("BACKEND_LABELS", ARRAY, 4, 128, 16384),
        ("CLOCK", ARRAY, 4, 4, 1),
        ("CONNECTIONS_V4", HASH, 16, 52, 64),
        ("CONNECTIONS_V6", HASH, 40, 76, 64),
        ("OPENING_V4", LRU_HASH, 16, 52, 64),
        ("OPENING_V6", LRU_HASH, 40, 76, 64),
    ] {
        make(dir, name, kind, key, value, entries);
    }
    let mut filter = AddressFilter::EMPTY;
    filter.insert(&VIP);
    set(dir, "ADDRESS_FILTER", 0, filter);
    insert(dir, "ADDRESSES", map_ipv4(VIP), ADDRESS_VIP);
    let mut service = [0u8; 20];
    service[..16].copy_from_slice(&map_ipv4(VIP));
    service[16..19].copy_from_slice(&[0, 80, 6]);
    insert(dir, "SERVICES", service, 3u32);
    set(dir, "FARMS", 3, FarmEntry { table: 3, mode: MODE_NAT, scheduler: 0, flags: FARM_REFUSES });
    let label = Label::new("web").unwrap();
    set(dir, "FARM_LABELS", 3, label);
    set(dir, "MAGLEV", 3, MaglevTable { slots: [3; 16381], reserved: [0; 3] });
    let mut backend = [0u8; 64];
    backend[..16].copy_from_slice(&hop(BACKEND_MAC));
    backend[32..36].copy_from_slice(&BACKEND);
    backend[54] = 1;
    set(dir, "BACKENDS", 3, backend);
    set(dir, "BACKEND_LABELS", 3, BackendLabel { farm: label, name: Label::new("10.0.0.11").unwrap() });
    set(dir, "CLOCK", 0, 5000u32);
}

/// By the interface that test packets come from.
fn hop(mac: [u8; 6]) -> [u8; 16] {
    let mut hop = [0; 16];
    hop[0] = 1;
    hop[4..10].copy_from_slice(&mac);
    hop[10..].copy_from_slice(&BALANCER_MAC);
    hop
}

/// Enters a connection from port 40000 of a client by port 50000; `state` is the number in that version.
fn connection(dir: &Path, table: &str, client: [u8; 4], state: u8) {
    let port = |port: u16| port.to_be_bytes();
    let key = FlowKey::new(client, VIP, port(40000), port(80), 6);
    let to = FlowKey::new(VIP, BACKEND, port(50000 + u16::from(client[3])), port(80), 6);
    for (key, to, direction) in [(key, to, 0), (to.reversed(), key.reversed(), 1)] {
        let mut entry = [0u8; 52];
        entry[..16].copy_from_slice(&hop(CLIENT_MAC));
        entry[16..20].copy_from_slice(&to.src);
        entry[20..24].copy_from_slice(&to.dst);
        entry[24..26].copy_from_slice(&to.src_port);
        entry[26..28].copy_from_slice(&to.dst_port);
        entry[32..34].copy_from_slice(&3u16.to_ne_bytes());
        entry[34..36].copy_from_slice(&3u16.to_ne_bytes());
        entry[36..40].copy_from_slice(&4990u32.to_ne_bytes());
        entry[40..44].copy_from_slice(&4000u32.to_ne_bytes());
        entry[44..48].copy_from_slice(&7000u32.to_ne_bytes());
        (entry[48], entry[49], entry[51]) = (direction, state, 1);
        insert(dir, table, key, entry);
    }
}

fn pins(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn connections_go_on_with_the_maps_of_the_next_version() {
    let dir = PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-upgrade", std::process::id()));
    let former = dir.join("maps-v1");
    former_maps(&former);
    connection(&former, "CONNECTIONS_V4", [198, 51, 100, 7], 1);
    let mut rig = Rig::taking_over(dir.clone());
    let upgrade = rig.datapath.upgrade().unwrap().unwrap();
    upgrade.begin(&mut rig.datapath, &mut rig.observed).unwrap();
    // Until the links have the new program others may open; one handshake is under way.
    connection(&former.with_file_name("maps-v1-left"), "CONNECTIONS_V4", [198, 51, 100, 8], 1);
    connection(&former.with_file_name("maps-v1-left"), "OPENING_V4", [198, 51, 100, 9], 0);
    let segment = |flags, seq, ack| L4::Tcp { flags, seq, ack };
    let late = frame("198.51.100.8:40000", "192.0.2.10:80", segment(ACK, 1000, 9000), b"");
    assert_eq!(rig.verdict(&late), "refusal_limited", "nobody is reset for being known too late");
    upgrade.finish(&mut rig.datapath).unwrap();
    assert_eq!(pins(&dir), ["maps-v2"]);

    assert_eq!(rig.connections(), 3);
    for client in [7, 8, 9] {
        let outside = format!("198.51.100.{client}:40000");
        // The handshake's last part, or an ordinary segment.
        let got = rig.send(&frame(&outside, "192.0.2.10:80", segment(ACK, 1000, 7001), b"hello"));
        let seen = read(&got.frame);
        assert_eq!((got.verdict, seen.macs), ("forwarded", (BACKEND_MAC, BALANCER_MAC)));
        let inside = format!("192.0.2.10:{}", 50000 + client);
        assert_eq!((seen.src.to_string(), seen.dst.to_string()), (inside.clone(), "10.0.0.11:80".to_owned()));
        let got = rig.send(&frame("10.0.0.11:80", &inside, segment(ACK, 7001, 1005), b"hello"));
        let seen = read(&got.frame);
        assert_eq!((got.verdict, seen.macs), ("forwarded", (CLIENT_MAC, BALANCER_MAC)));
        assert_eq!((seen.src.to_string(), seen.dst.to_string()), ("192.0.2.10:80".to_owned(), outside));
    }
    let fresh = frame("198.51.100.10:40000", "192.0.2.10:80", tcp(SYN), b"");
    assert_eq!(rig.verdict(&fresh), "opened", "and new ones are served");
}

#[test]
fn an_upgrade_that_was_interrupted_begins_anew_or_is_finished() {
    let dir = PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-interrupted", std::process::id()));
    let former = dir.join("maps-v1");
    former_maps(&former);
    connection(&former, "CONNECTIONS_V4", [198, 51, 100, 7], 1);
    // Killed before the first connection was brought over: the half-made maps are of no use.
    drop(lb_daemon::datapath::Datapath::load(&dir, 1024).unwrap());
    assert_eq!(pins(&dir), ["maps-v1", "maps-v2"]);
    let mut rig = Rig::taking_over(dir.clone());
    let upgrade = rig.datapath.upgrade().unwrap().unwrap();
    upgrade.begin(&mut rig.datapath, &mut rig.observed).unwrap();
    assert_eq!(rig.connections(), 1);
    // Killed when the links had changed.
    drop(upgrade);
    connection(&dir.join("maps-v1-left"), "CONNECTIONS_V4", [198, 51, 100, 8], 1);
    let upgrade = rig.datapath.upgrade().unwrap().unwrap();
    upgrade.begin(&mut rig.datapath, &mut rig.observed).unwrap();
    upgrade.finish(&mut rig.datapath).unwrap();
    assert_eq!((pins(&dir), rig.connections()), (vec!["maps-v2".to_owned()], 2));
    assert!(rig.datapath.upgrade().unwrap().is_none(), "once is enough");
}

/// A version of the same layout that knew fewer verdicts made a smaller map for their counters.
#[test]
fn counters_of_verdicts_that_are_new_have_room() {
    let dir = PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-room", std::process::id()));
    let maps = dir.join("maps-v2");
    std::fs::create_dir_all(&maps).unwrap();
    make(&maps, "VERDICTS", PERCPU_ARRAY, 4, 8, 3);
    let mut rig = Rig::taking_over(dir);
    let fresh = frame("198.51.100.10:40000", "192.0.2.10:80", tcp(SYN), b"");
    assert_eq!(rig.verdict(&fresh), "not_for_vip");
    let tagged = [&[0u8; 12][..], &[0x81, 0, 0, 1, 8, 0], &[0; 60]].concat();
    assert_eq!(rig.verdict(&tagged), "tagged", "the fifth of them is counted");
}

/// A version of the same layout that knew fewer maps pinned fewer.
#[test]
fn maps_that_are_new_are_made_beside_those_that_are_there() {
    let dir = PathBuf::from(format!("/sys/fs/bpf/drover-test-{}-fewer", std::process::id()));
    drop(lb_daemon::datapath::Datapath::load(&dir, 1024).unwrap());
    let pin = dir.join("maps-v2/SCHEDULES");
    std::fs::remove_file(&pin).unwrap();
    let mut rig = Rig::taking_over(dir);
    assert!(rig.datapath.adopted && pin.exists());
    let mut web = farm("web", &["192.0.2.10"], port(80), Mode::Dnat, &[("10.0.0.11", 1)]);
    web.scheduler = Scheduler::SourceHash;
    rig.configure(&[web], |_| true);
    assert_eq!(rig.verdict(&frame("198.51.100.10:40000", "192.0.2.10:80", tcp(SYN), b"")), "opened");
}
