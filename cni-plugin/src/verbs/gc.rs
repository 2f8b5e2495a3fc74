//! GC: everything of the network that is in no living attachment goes. Goes on after errors, and lists them.
//!
//! Two sorts are found. Records: attachments that the runtime does not know, and intents that nobody will finish.
//! Objects without a record: links with our alias, elements of our table. An attachment whose lock is held is being
//! worked on and is left alone.

use std::collections::BTreeSet;

use crate::conf::Ipam;
use crate::names::{self, LINK_PREFIX, SHAPER_PREFIX};
use crate::netlink::{Link, Netns};
use crate::nft::{Element, all_elements_of};
use crate::node::Node;
use crate::spec::{CniError, Result};
use crate::store::{Key, Phase, Record, State, Store};
use crate::verbs::{Call, combine, del, delegate};

pub(super) fn gc(call: &Call<'_>) -> Result<()> {
    let mut node = Node::open(&call.store)?;
    let mut errors = Vec::new();
    // cnitool sends no list. Nothing is then known of the living, so only what is surely dead goes.
    let alive = |record: &Record| match &call.conf.valid_attachments {
        None => !is_gone(record),
        Some(valid) => {
            let Key { network: _, container_id, ifname } = &record.key;
            valid.iter().any(|one| one.container_id == *container_id && one.ifname == *ifname)
        }
    };
    for record in of_network(call, &call.store.read()?) {
        if record.phase != Phase::Committed || !alive(&record) {
            errors.extend(remove_unless_busy(call, &mut node, &record));
        }
    }
    errors.extend(sweep(&mut node, &call.store).err());
    if let Ipam::Delegated(plugin) = &call.conf.ipam {
        errors.extend(delegate::gc(call, plugin).err());
    }
    combine(errors)
}

fn of_network(call: &Call<'_>, state: &State) -> Vec<Record> {
    state.records().filter(|record| record.key.network == call.conf.name).cloned().collect()
}

/// Addresses and ports of an ADD that was killed are free as soon as somebody wants them.
pub(super) fn undo_dead_intents(call: &Call<'_>, node: &mut Node) {
    let Ok(state) = call.store.read() else { return };
    let unfinished =
        state.records().filter(|record| record.phase != Phase::Committed && record.key != call.key);
    for record in unfinished {
        // What cannot be removed now keeps its address; the caller tries its luck with the others.
        let _ = remove_unless_busy(call, node, record);
    }
}

fn remove_unless_busy(call: &Call<'_>, node: &mut Node, record: &Record) -> Vec<CniError> {
    let lock = match call.store.try_lock_attachment(&record.key) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Vec::new(),
        Err(error) => return vec![error.into()],
    };
    // It may have been finished, or removed and added again, before we had the lock.
    let errors = match call.store.read() {
        Ok(state) if state.get(&record.key) == Some(record) => {
            let of_record = Call { key: record.key.clone(), store: call.store.clone(), ..*call };
            del::undo(&of_record, node, record)
        }
        Ok(_) => Vec::new(),
        Err(error) => vec![error.into()],
    };
    drop(lock);
    errors
}

/// Whether the namespace that ADD wired no longer exists under its path.
pub(crate) fn is_gone(record: &Record) -> bool {
    Netns::inode_of(&record.netns) != Some(record.netns_inode)
}

/// Removes attachments whose network namespace is gone, if they were in `suspects` too: what was seen twice, a minute
/// apart, is not a pod that is just being made. Answers with the suspects for the next time, and how many it removed.
///
/// For who has no runtime's list: containerd never calls GC.
pub fn collect_gone(
    node: &mut Node,
    store: &Store,
    suspects: &BTreeSet<Key>,
) -> Result<(BTreeSet<Key>, usize)> {
    let state = store.read()?;
    let gone: Vec<&Record> = state.records().filter(|record| record.owns_ips && is_gone(record)).collect();
    let (mut next, mut removed, mut errors) = (BTreeSet::new(), 0, Vec::new());
    for record in gone {
        if !suspects.contains(&record.key) {
            next.insert(record.key.clone());
            continue;
        }
        let Some(_lock) = store.try_lock_attachment(&record.key)? else { continue };
        if store.read()?.get(&record.key) != Some(record) {
            continue;
        }
        match del::undo_record(store, node, record) {
            failed if failed.is_empty() => removed += 1,
            failed => errors.extend(failed),
        }
    }
    combine(errors).map(|()| (next, removed))
}

/// What a sweep removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Links without a record.
    pub links: usize,
    /// Elements of the nftables table without a record.
    pub elements: usize,
}

/// Removes objects without a record. Safe beside everything: a record is written before anything is made, and is
/// removed after everything is gone, so an object that was seen before a record was looked for in vain is a leak.
pub fn sweep(node: &mut Node, store: &Store) -> Result<Swept> {
    let ours = |link: &Link| link.name.starts_with(LINK_PREFIX) || link.name.starts_with(SHAPER_PREFIX);
    let links: Vec<Link> = node.rtnl().links()?.into_iter().filter(ours).collect();
    let mut swept = Swept::default();
    {
        let state = store.read()?;
        let recorded = |name: &str| {
            state.records().any(|record| record.host_link == name || record.shaper.as_deref() == Some(name))
        };
        for link in links.iter().filter(|link| !recorded(&link.name)) {
            swept.links += usize::from(remove_leaked(node, store, link)?);
        }
    }
    // Elements carry no owner, so the store stands still while they are compared.
    let locked = store.lock()?;
    let known: Vec<Element> = locked.state().records().flat_map(all_elements_of).collect();
    swept.elements = node.nft()?.keep_only(&known)?;
    Ok(swept)
}

/// A link that names an attachment is removed under its lock; one that names none was never finished, and the process
/// that made it is dead, because its intent is gone.
fn remove_leaked(node: &mut Node, store: &Store, link: &Link) -> Result<bool> {
    let kind = link.kind.as_deref();
    if !matches!(kind, Some("veth" | "ifb")) {
        return Ok(false);
    }
    let key = link.alias.as_deref().and_then(names::parse_alias);
    let lock = key.as_ref().map(|key| store.try_lock_attachment(key)).transpose()?;
    if matches!(lock, Some(None)) || key.as_ref().is_some_and(|key| names::host_link(key) != link.name) {
        return Ok(false);
    }
    if key.is_some_and(|key| store.read().is_ok_and(|state| state.get(&key).is_some())) {
        return Ok(false);
    }
    node.rtnl().delete_link(link)?;
    Ok(true)
}
