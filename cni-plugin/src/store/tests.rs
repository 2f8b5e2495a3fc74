//! The store under properties: random histories, cuts at every byte, no room, and a pool that churns.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::conf::{PortMapping, Protocol, Range, RangeSet};

fn key(id: u32) -> Key {
    Key { network: "pods".into(), container_id: format!("c{id}"), ifname: "eth0".into() }
}

fn record(id: u32, ips: Vec<IpAddr>) -> Record {
    Record {
        key: key(id),
        phase: Phase::Intent,
        ips,
        owns_ips: true,
        host_link: format!("tsv{id}"),
        netns: format!("/run/netns/{id}").into(),
        netns_inode: 4_026_000_000 + u64::from(id),
        pod: Some(format!("shop/web-{id}")),
        ports: Vec::new(),
        masquerade: true,
        spoof_protection: true,
        shaper: None,
    }
}

fn set(subnets: &[&str]) -> RangeSet {
    let range = |subnet: &&str| Range {
        subnet: subnet.parse().unwrap(),
        range_start: None,
        range_end: None,
        gateway: None,
    };
    RangeSet::new(subnets.iter().map(range).collect()).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::new(&dir.path().join("data"));
    (dir, store)
}

/// One step of a random history.
#[derive(Clone, Copy, Debug)]
enum Step {
    Add(u32),
    Commit(u32),
    Release(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (0_u32..20).prop_flat_map(|id| {
        prop_oneof![Just(Step::Add(id)), Just(Step::Commit(id)), Just(Step::Release(id))]
    });
    proptest::collection::vec(step, 0..120)
}

fn run(locked: &mut Locked<'_>, sets: &[RangeSet], step: Step) {
    match step {
        Step::Add(id) => {
            if locked.state().get(&key(id)).is_some() {
                return;
            }
            if let Ok(chosen) = allocate(locked.state(), sets, &[]) {
                let ips = chosen.into_iter().map(|(ip, _)| ip).collect();
                locked.append(Event::Record(Box::new(record(id, ips)))).unwrap();
            }
        }
        Step::Commit(id) => locked.append(Event::Commit(key(id))).unwrap(),
        Step::Release(id) => locked.append(Event::Release(key(id))).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No address has two owners; a pool refuses only when it is full; what is read back is what was written.
    #[test]
    fn histories_keep_their_promises(steps in steps()) {
        let (_dir, store) = store();
        let sets = [set(&["10.0.0.0/29", "10.0.1.0/29"]), set(&["fd00::/64"])];
        let mut locked = store.lock().unwrap();
        for step in steps {
            let full = free(locked.state(), &sets[0]) == 0;
            if let (Step::Add(id), false) = (step, full) {
                run(&mut locked, &sets, step);
                prop_assert!(locked.state().get(&key(id)).is_some(), "refused while an address was free");
            } else {
                run(&mut locked, &sets, step);
            }
            let all: Vec<IpAddr> = locked.state().records().flat_map(|record| record.ips.clone()).collect();
            let distinct: HashSet<&IpAddr> = all.iter().collect();
            prop_assert_eq!(distinct.len(), all.len(), "an address has two owners");
            let waiting: HashSet<IpAddr> = locked.state().quarantine().collect();
            prop_assert!(all.iter().all(|ip| !waiting.contains(ip)), "a used address is in quarantine");
        }
        prop_assert_eq!(&store.read().unwrap(), locked.state());
        prop_assert_eq!(&State::replay(locked.state().to_events()), locked.state());
    }

    /// The log cut at any byte is the state after some earlier event, and can be written on.
    #[test]
    fn a_cut_log_is_an_earlier_state(steps in steps(), at in 0.0..1.0_f64) {
        let (_dir, store) = store();
        let sets = [set(&["10.0.0.0/28"])];
        let mut locked = store.lock().unwrap();
        let mut earlier = vec![State::default()];
        for step in steps {
            run(&mut locked, &sets, step);
            earlier.push(locked.state().clone());
        }
        drop(locked);
        let bytes = fs::read(store.path()).unwrap();
        let cut = (bytes.len() as f64 * at) as usize;
        fs::write(store.path(), &bytes[..cut]).unwrap();
        let mut locked = store.lock().unwrap();
        prop_assert!(earlier.contains(locked.state()));
        let mut expected = locked.state().clone();
        locked.append(Event::Commit(key(3))).unwrap();
        expected.apply(Event::Commit(key(3)));
        prop_assert_eq!(store.read().unwrap(), expected);
    }
}

/// Each byte of a small log, with every state checked exactly.
#[test]
fn truncation_at_every_byte() {
    let (_dir, store) = store();
    let sets = [set(&["10.0.0.0/28"]), set(&["fd00::/64"])];
    let mut locked = store.lock().unwrap();
    let mut ends = vec![(0, State::default())];
    for step in [Step::Add(1), Step::Commit(1), Step::Add(2), Step::Release(1), Step::Add(3), Step::Commit(3)]
    {
        run(&mut locked, &sets, step);
        ends.push((locked.length, locked.state().clone()));
    }
    drop(locked);
    let bytes = fs::read(store.path()).unwrap();
    assert_eq!(bytes.len(), ends.last().unwrap().0);
    for cut in 0..=bytes.len() {
        fs::write(store.path(), &bytes[..cut]).unwrap();
        let expected = &ends.iter().rev().find(|(end, _)| *end <= cut).unwrap().1;
        assert_eq!(&store.read().unwrap(), expected, "cut at {cut}");
        let mut locked = store.lock().unwrap();
        locked.append(Event::Record(Box::new(record(9, vec!["10.0.0.14".parse().unwrap()])))).unwrap();
        drop(locked);
        let mut expected = expected.clone();
        expected.apply(Event::Record(Box::new(record(9, vec!["10.0.0.14".parse().unwrap()]))));
        assert_eq!(store.read().unwrap(), expected, "written on after a cut at {cut}");
    }
}

/// A small pool under churn never refuses while an address is free, and reuses the one that was freed the longest
/// ago.
#[test]
fn quarantine_is_an_order_and_not_a_ban() {
    let sets = [set(&["10.0.0.0/28"])];
    let mut state = State::default();
    let mut alive = VecDeque::new();
    let mut freed_at: BTreeMap<IpAddr, u32> = BTreeMap::new();
    for id in 0..1000 {
        if alive.len() == 12 {
            let gone: u32 = alive.pop_front().unwrap();
            freed_at.insert(state.get(&key(gone)).unwrap().ips[0], id);
            state.apply(Event::Release(key(gone)));
        }
        let chosen = allocate(&state, &sets, &[]).unwrap()[0].0;
        let oldest = freed_at.iter().filter(|(ip, _)| !state.used().contains(ip)).min_by_key(|(_, at)| **at);
        if let Some((ip, _)) = oldest.filter(|_| id > 13) {
            assert_eq!(chosen, *ip, "round {id}");
        }
        state.apply(Event::Record(Box::new(record(id, vec![chosen]))));
        alive.push_back(id);
    }
    let full =
        State::replay((0..13).map(|id| {
            Event::Record(Box::new(record(id, vec![format!("10.0.0.{}", id + 2).parse().unwrap()])))
        }));
    let error = allocate(&full, &sets, &[]).unwrap_err();
    assert_eq!(error.to_string(), "no free address in 10.0.0.0/28 (13 in all)");
    assert_eq!(error.code, crate::spec::Code::AddressesExhausted);
}

/// When a node gets a second podCIDR it is used as soon as the first is full, and the first is not abandoned.
#[test]
fn several_pod_cidrs_fill_in_order() {
    let sets = [set(&["10.0.0.0/30", "10.9.0.0/30"])];
    let mut state = State::default();
    let add = |state: &mut State, id: u32| {
        let ip = allocate(state, &sets, &[]).unwrap()[0].0;
        state.apply(Event::Record(Box::new(record(id, vec![ip]))));
        ip.to_string()
    };
    assert_eq!(add(&mut state, 1), "10.0.0.2");
    assert_eq!(add(&mut state, 2), "10.9.0.2");
    state.apply(Event::Release(key(1)));
    assert_eq!(add(&mut state, 3), "10.0.0.2");
    // A pod of a range that was taken away keeps its address; nobody gets another of it.
    let moved = [set(&["10.9.0.0/30"])];
    state.apply(Event::Release(key(2)));
    assert_eq!(allocate(&state, &moved, &[]).unwrap()[0].0.to_string(), "10.9.0.2");
    assert_eq!(state.get(&key(3)).unwrap().ips[0].to_string(), "10.0.0.2");
}

#[test]
fn wanted_addresses_are_given_or_explained() {
    let sets = [set(&["10.0.0.0/24"]), set(&["fd00::/64"])];
    let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
    let mut state = State::default();
    let chosen = allocate(&state, &sets, &[ip("fd00::77")]).unwrap();
    assert_eq!([chosen[0].0, chosen[1].0], [ip("10.0.0.2"), ip("fd00::77")]);
    state.apply(Event::Record(Box::new(record(1, vec![ip("10.0.0.9")]))));
    let refused = |wanted: &str| allocate(&state, &sets, &[ip(wanted)]).unwrap_err().to_string();
    let text = [refused("10.0.0.9"), refused("10.0.0.1"), refused("192.168.0.1")].join("\n");
    insta::assert_snapshot!(text, @r"
    the wanted address 10.0.0.9 belongs to pod shop/web-1; ask for another address, or remove that pod
    the wanted address 10.0.0.1 is in no range; ask for an address of the network's ranges, one of each set
    the wanted address 192.168.0.1 is in no range; ask for an address of the network's ranges, one of each set
    ");
}

#[test]
fn a_host_port_names_its_owner() {
    let port = |host_ip: Option<&str>| PortMapping {
        host_port: 8080,
        container_port: 80,
        protocol: Protocol::Tcp,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
    };
    let mut first = record(1, vec![]);
    first.ports = vec![port(None)];
    let state = State::replay([Event::Record(Box::new(first))]);
    let error = check_ports(&state, &key(2), &[port(Some("127.0.0.1"))]).unwrap_err();
    assert_eq!(error.code, crate::spec::Code::PortInUse);
    assert!(error.msg.ends_with("127.0.0.1:8080/tcp already leads to pod shop/web-1"), "{error}");
    assert!(check_ports(&state, &key(1), &[port(None)]).is_ok(), "its own port is no obstacle");
}

/// History is dropped, state is not, and a reader never sees half of it.
#[test]
fn compaction_keeps_state_and_order() {
    let (_dir, store) = store();
    let sets = [set(&["10.0.0.0/28"])];
    let mut locked = store.lock().unwrap();
    for id in 0..200 {
        run(&mut locked, &sets, Step::Add(id));
        run(&mut locked, &sets, Step::Commit(id));
        if id >= 5 {
            run(&mut locked, &sets, Step::Release(id - 5));
        }
        let before = locked.state().clone();
        locked.compact_if_worth_it().unwrap();
        assert_eq!(locked.state(), &before);
        assert_eq!(store.read().unwrap(), before);
    }
    assert!(fs::metadata(store.path()).unwrap().len() < COMPACT_ABOVE as u64 * 2);
    assert!(!store.dir.join("store.new").exists());
}

/// A process that was killed while compacting leaves a file that disturbs nobody.
#[test]
fn half_of_a_compaction_is_ignored() {
    let (_dir, store) = store();
    let mut locked = store.lock().unwrap();
    run(&mut locked, &[set(&["10.0.0.0/28"])], Step::Add(1));
    fs::write(store.dir.join("store.new"), "half").unwrap();
    let state = locked.state().clone();
    drop(locked);
    assert_eq!(store.lock().unwrap().state(), &state);
}

/// Two processes: here two open files, which the kernel treats the same.
#[test]
fn attachment_locks_exclude_by_attachment() {
    let (_dir, store) = store();
    let held = store.lock_attachment(&key(1)).unwrap();
    assert!(store.try_lock_attachment(&key(1)).unwrap().is_none());
    assert!(store.try_lock_attachment(&key(2)).unwrap().is_some());
    drop(held);
    assert!(store.try_lock_attachment(&key(1)).unwrap().is_some());
}

#[test]
fn a_foreign_file_is_left_alone() {
    let (_dir, store) = store();
    drop(store.lock().unwrap());
    fs::write(store.path(), "somebody's notes").unwrap();
    let error = CniError::from(store.lock().unwrap_err());
    assert_eq!(error.code, Code::Io);
    assert!(error.details.contains("drain the node"), "{error}");
    assert_eq!(fs::read_to_string(store.path()).unwrap(), "somebody's notes");
}
