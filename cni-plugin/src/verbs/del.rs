//! DEL: total. It needs neither the namespace nor a `prevResult`, may be repeated, and succeeds for what never was.

use crate::conf::Ipam;
use crate::names;
use crate::node::Node;
use crate::spec::{CniError, Result};
use crate::store::{Event, Phase, Record, Store};
use crate::verbs::{Call, combine, delegate};

pub(super) fn del(call: &Call<'_>) -> Result<()> {
    // An ADD that is under way finishes or dies first; the kernel ends the lock of one that was killed.
    let _lock = call.store.lock_attachment(&call.key)?;
    let mut node = Node::open(&call.store)?;
    let record = call.store.read()?.get(&call.key).cloned();
    let errors = match &record {
        Some(record) => undo(call, &mut node, record),
        None => without_record(call, &mut node),
    };
    combine(errors)
}

/// The store knows nothing: never added, deleted before, or lost. The name still tells what would be ours.
fn without_record(call: &Call<'_>, node: &mut Node) -> Vec<CniError> {
    let mut errors: Vec<CniError> = Vec::new();
    errors.extend(node.remove_link(&names::shaper(&call.key), None).err());
    errors.extend(node.remove_link(&names::host_link(&call.key), Some(&call.key)).err());
    errors.extend(delegated(call).err());
    errors
}

/// Removes what the record says may exist, and then the record. With an error the record stays, so that the next DEL
/// or GC tries again; everything else is removed all the same.
pub(super) fn undo(call: &Call<'_>, node: &mut Node, record: &Record) -> Vec<CniError> {
    let mut errors = mark_removing(&call.store, record);
    errors.extend(node.remove(record));
    errors.extend(delegated(call).err());
    release(&call.store, record, errors)
}

/// The same where no configuration is at hand; for attachments whose addresses are ours.
pub(super) fn undo_record(store: &Store, node: &mut Node, record: &Record) -> Vec<CniError> {
    let mut errors = mark_removing(store, record);
    errors.extend(node.remove(record));
    release(store, record, errors)
}

/// So that nobody who makes the table again meanwhile brings the pod's elements back.
fn mark_removing(store: &Store, record: &Record) -> Vec<CniError> {
    let removing = Record { phase: Phase::Removing, ..record.clone() };
    let marked = store.lock().and_then(|mut locked| locked.append(Event::Record(Box::new(removing))));
    marked.err().map(CniError::from).into_iter().collect()
}

fn release(store: &Store, record: &Record, mut errors: Vec<CniError>) -> Vec<CniError> {
    if errors.is_empty() {
        let released = store.lock().and_then(|mut locked| locked.append(Event::Release(record.key.clone())));
        errors.extend(released.err().map(CniError::from));
    }
    errors
}

/// The plugin that gave out the addresses hears of it in any case: it may know what we do not.
fn delegated(call: &Call<'_>) -> Result<()> {
    match &call.conf.ipam {
        Ipam::Delegated(plugin) => delegate::del(call, plugin),
        Ipam::Own { .. } | Ipam::Absent => Ok(()),
    }
}
