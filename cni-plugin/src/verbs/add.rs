//! ADD: reserve, record, wire, confirm. When a step fails, everything is taken back at once: the runtime calls with
//! another container id next time.

use std::net::IpAddr;

use crate::conf::{Ipam, NetConf};
use crate::effect::Effect;
use crate::names;
use crate::node::{Node, Pod, bridge_netfilter};
use crate::plan::{Assigned, Wiring, protection, takeover, wire};
use crate::spec::{CniError, Code, Ip, Result, Route, Success};
use crate::store::{self, Event, Phase, Record, StoreError};
use crate::verbs::{Call, combine, del, delegate, gc};

pub(super) fn add(call: &Call<'_>) -> Result<Success> {
    let path = call.environment.netns.as_deref().unwrap_or_else(|| std::path::Path::new(""));
    let mut pod = Pod::open(path)?;
    if pod.netns.is_own() && !overridden() {
        return Err(CniError::new(
            Code::InvalidNetns,
            format!("CNI_NETNS {} is the node's own", path.display()),
        )
        .details("the container needs a network namespace of its own"));
    }
    let _lock = call.store.lock_attachment(&call.key)?;
    let mut node = Node::open(&call.store)?;
    let chained = call.conf.prev_result.is_some();
    if !chained {
        make_way(call, &mut node, &mut pod)?;
    }
    let (record, addresses, routes) = match &call.conf.ipam {
        _ if chained => chained_record(call, &pod)?,
        Ipam::Own { .. } => reserve(call, &mut node, &pod)?,
        Ipam::Delegated(plugin) => delegated(call, plugin, &mut node, &pod)?,
        Ipam::Absent => {
            return Err(CniError::new(
                Code::InvalidNetworkConfig,
                "there is neither `ipam` nor a prevResult",
            )
            .details("add `ipam.ranges`, or put the plugin behind one that makes interfaces"));
        }
    };
    let wired = attach(call, &mut node, &mut pod, (&record, &addresses, &routes));
    let finished = wired.and_then(|success| {
        call.store.lock()?.append(Event::Commit(call.key.clone()))?;
        Ok(success)
    });
    finished.inspect_err(|_| {
        // The record stays for GC if even this fails, and the first error is the one that matters.
        let _ = del::undo(call, &mut node, &record);
    })
}

/// The reference library's switch for tests and nested runtimes.
fn overridden() -> bool {
    std::env::var("CNI_NETNS_OVERRIDE").is_ok_and(|value| value == "1" || value.eq_ignore_ascii_case("true"))
}

/// What an earlier, killed ADD of the same attachment left is removed; what a finished one made is not.
fn make_way(call: &Call<'_>, node: &mut Node, pod: &mut Pod) -> Result<()> {
    let ifname = &call.key.ifname;
    let old = call.store.read()?.get(&call.key).cloned();
    let present = pod.rtnl.link(ifname)?.is_some();
    match old {
        Some(old) if old.phase == Phase::Committed && present => return Err(exists(ifname, &path_of(call))),
        Some(old) => combine(del::undo(call, node, &old))?,
        // A link of ours without a record: the store was lost, the name is still ours.
        None => node.remove_link(&names::host_link(&call.key), Some(&call.key))?,
    }
    match pod.rtnl.link(ifname)? {
        Some(_) => Err(exists(ifname, &path_of(call))),
        None => Ok(()),
    }
}

fn path_of<'a>(call: &'a Call<'_>) -> std::borrow::Cow<'a, str> {
    call.environment.netns.as_deref().map(std::path::Path::to_string_lossy).unwrap_or_default()
}

fn exists(ifname: &str, netns: &str) -> CniError {
    CniError::new(Code::InterfaceExists, format!("{netns} already has an interface {ifname}"))
        .details("an attachment is added once; DEL it first")
}

type Reserved = (Record, Vec<Assigned>, Vec<Route>);

/// Chooses addresses and writes the intent, in one critical section.
fn reserve(call: &Call<'_>, node: &mut Node, pod: &Pod) -> Result<Reserved> {
    match try_reserve(call, pod) {
        Err(error) if matches!(error.code, Code::AddressesExhausted | Code::PortInUse) => {
            // Perhaps what is missing belongs to an ADD that was killed.
            gc::undo_dead_intents(call, node);
            try_reserve(call, pod).map_err(|error| explain(call, error))
        }
        other => other,
    }
}

fn try_reserve(call: &Call<'_>, pod: &Pod) -> Result<Reserved> {
    let wanted = call.conf.runtime.wanted_ips()?;
    let mut locked = call.store.lock()?;
    let ports = call.conf.runtime.ports();
    store::check_ports(locked.state(), &call.key, &ports)?;
    let chosen = store::allocate(locked.state(), call.conf.range_sets(), &wanted)?;
    let addresses: Vec<Assigned> = chosen
        .into_iter()
        .map(|(ip, range)| Assigned { ip, prefix_len: range.prefix_len(), gateway: range.gateway() })
        .collect();
    let ips: Vec<IpAddr> = addresses.iter().map(|address| address.ip).collect();
    let record = record(call, pod, ips.clone());
    locked.compact_if_worth_it().or_else(harmless)?;
    locked.reserve_room()?;
    locked.append(Event::Record(Box::new(record.clone())))?;
    Ok((record, addresses, call.conf.routes_for(&ips)))
}

/// Compaction needs room for a second copy; without it the log is just longer.
fn harmless(error: StoreError) -> Result<(), StoreError> {
    if let StoreError::Io { what: "write", .. } = error { Ok(()) } else { Err(error) }
}

/// How many of the addresses belong to pods that are gone: the difference between "too small" and "leaking".
fn explain(call: &Call<'_>, error: CniError) -> CniError {
    if error.code != Code::AddressesExhausted {
        return error;
    }
    let leaked =
        call.store.read().map_or(0, |state| state.records().filter(|record| gc::is_gone(record)).count());
    let details = match leaked {
        0 => "all belong to living pods: give the node another podCIDR, or lower maxPods".to_owned(),
        count => format!(
            "{count} of them belong to network namespaces that are gone: call GC, or remove those pods"
        ),
    };
    error.details(details)
}

fn record(call: &Call<'_>, pod: &Pod, ips: Vec<IpAddr>) -> Record {
    let NetConf { runtime, masquerade, spoof_protection, .. } = call.conf;
    let shaped = runtime.bandwidth.is_some_and(|bandwidth| bandwidth.egress_rate > 0);
    Record {
        key: call.key.clone(),
        phase: Phase::Intent,
        ips,
        owns_ips: true,
        host_link: names::host_link(&call.key),
        netns: call.environment.netns.clone().unwrap_or_default(),
        netns_inode: pod.netns.inode(),
        pod: call.environment.args.pod(),
        ports: runtime.ports(),
        masquerade: masquerade.is_some(),
        spoof_protection: *spoof_protection,
        shaper: shaped.then(|| names::shaper(&call.key)),
    }
}

/// Behind another plugin: its interface and addresses, our host ports and masquerading.
fn chained_record(call: &Call<'_>, pod: &Pod) -> Result<Reserved> {
    if call.conf.runtime.bandwidth.is_some_and(|bandwidth| bandwidth.ingress_rate + bandwidth.egress_rate > 0)
    {
        return Err(CniError::new(Code::UnsupportedField, "runtimeConfig.bandwidth with a prevResult")
            .details("behind another plugin traffic is not shaped: take the bandwidth capability out"));
    }
    let result = call.conf.prev_result.as_ref();
    let ips = result.iter().flat_map(|result| &result.ips).map(|ip| ip.address.addr()).collect();
    let own = Record {
        owns_ips: false,
        host_link: String::new(),
        spoof_protection: false,
        shaper: None,
        ..record(call, pod, ips)
    };
    intend(call, &own)?;
    Ok((own, Vec::new(), Vec::new()))
}

/// Another plugin gives out the addresses. The intent is written first, so that they are given back if we die.
fn delegated(call: &Call<'_>, plugin: &str, node: &mut Node, pod: &Pod) -> Result<Reserved> {
    let empty = Record { owns_ips: false, ..record(call, pod, Vec::new()) };
    intend(call, &empty)?;
    let given = delegate::add(call, plugin).and_then(|given| adopt(call, &empty, given));
    given.inspect_err(|_| {
        let _ = del::undo(call, node, &empty);
    })
}

fn adopt(call: &Call<'_>, empty: &Record, given: Success) -> Result<Reserved> {
    let assigned = |ip: &Ip| Assigned {
        ip: ip.address.addr(),
        prefix_len: ip.address.prefix_len(),
        gateway: ip.gateway.unwrap_or_else(|| ip.address.network()),
    };
    let addresses: Vec<Assigned> = given.ips.iter().map(assigned).collect();
    let ips: Vec<IpAddr> = addresses.iter().map(|address| address.ip).collect();
    let record = Record { ips, ..empty.clone() };
    intend(call, &record)?;
    let routes = if given.routes.is_empty() { call.conf.routes_for(&record.ips) } else { given.routes };
    Ok((record, addresses, routes))
}

fn intend(call: &Call<'_>, record: &Record) -> Result<()> {
    let mut locked = call.store.lock()?;
    store::check_ports(locked.state(), &call.key, &record.ports)?;
    locked.reserve_room()?;
    Ok(locked.append(Event::Record(Box::new(record.clone())))?)
}

fn attach(
    call: &Call<'_>,
    node: &mut Node,
    pod: &mut Pod,
    (record, addresses, routes): (&Record, &[Assigned], &[Route]),
) -> Result<Success> {
    if let Some(result) = call.conf.prev_result.clone() {
        let effects: Vec<Effect> =
            protection(call.conf, record).into_iter().chain(takeover(record)).collect();
        effects.iter().try_for_each(|effect| node.apply(pod, effect))?;
        return Ok(result);
    }
    let mtu = match call.conf.mtu {
        Some(mtu) => mtu,
        None => node.default_mtu()?,
    };
    let wiring = Wiring {
        conf: call.conf,
        record,
        addresses,
        routes,
        mtu,
        mac: call.conf.runtime.mac()?,
        sandbox: &path_of(call),
        bridge_netfilter: bridge_netfilter(),
    };
    let (effects, success) = wire(&wiring);
    effects.iter().try_for_each(|effect| node.apply(pod, effect))?;
    Ok(success)
}
