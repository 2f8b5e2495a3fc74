//! The network configuration as it arrives on stdin: read once, validated once.
//!
//! Decided here: which fields there are, and what is refused. ADD, CHECK and STATUS are strict. DEL and GC are not:
//! a configuration that somebody broke after the pods were made must not keep them from being removed.

mod ranges;
mod runtime;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::spec::{CniError, Code, Command, Dns, Result, Route, SpecVersion, Success};

pub use ranges::{Range, RangeSet};
pub(crate) use ranges::{from_number, number};
pub use runtime::{Bandwidth, PortMapping, Protocol, RuntimeConfig};

/// `type` of the configuration, and of `ipam` when addresses are given out by the plugin itself.
pub const PLUGIN: &str = "trysail-cni";
/// Where the plugin keeps what it must not forget while the machine runs: tmpfs, because a reboot takes the network
/// namespaces and everything else that is recorded there.
pub const DATA_DIR: &str = "/run/trysail-cni";
/// The least that IPv6 allows on a link (RFC 8200).
const MIN_MTU: u32 = 1280;
const MAX_MTU: u32 = 65_535;

/// How pods are wired to their node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A veth per pod and a host route per address: no shared segment, so every packet meets the node's rules.
    #[default]
    Routed,
    /// A veth per pod on a bridge.
    Bridge,
}

/// The configuration of one call.
#[derive(Clone, Debug)]
pub struct NetConf {
    /// Version to answer in.
    pub version: SpecVersion,
    /// The network's name.
    pub name: String,
    /// Wiring.
    pub mode: Mode,
    /// MTU of pods; that of the default route's device if absent.
    pub mtu: Option<u32>,
    /// Name of the bridge in bridge mode.
    pub bridge: String,
    /// Where addresses come from.
    pub ipam: Ipam,
    /// Name resolution, handed on to the runtime.
    pub dns: Dns,
    /// Whether and where the node's address replaces the pod's.
    pub masquerade: Option<Masquerade>,
    /// Whether packets with a foreign source are dropped; in routed mode only.
    pub spoof_protection: bool,
    /// State directory.
    pub data_dir: PathBuf,
    /// File in which the node agent says how it is; none: there is no agent to wait for.
    pub agent_state: Option<PathBuf>,
    /// What the runtime adds per call.
    pub runtime: RuntimeConfig,
    /// Result of the plugins before us (ADD), or of the whole chain (DEL, CHECK).
    pub prev_result: Option<Success>,
    /// GC: everything that may stay.
    pub valid_attachments: Option<Vec<Attachment>>,
    /// The bytes of it, for delegated plugins.
    pub raw: Value,
}

/// Where addresses come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ipam {
    /// From these ranges, one of each set.
    Own {
        /// Range sets.
        sets: Vec<RangeSet>,
        /// Routes of pods; the default route of each family if empty.
        routes: Vec<Route>,
    },
    /// Another plugin gives them out.
    Delegated(String),
    /// None: the plugin adds to what an earlier one made.
    Absent,
}

/// Which traffic leaves with the node's address.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masquerade {
    /// Destinations that see the pod's own address: pods of other nodes, and the nodes.
    #[serde(default)]
    pub exclude: Vec<IpNet>,
}

/// One interface of one container.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Attachment {
    /// CNI_CONTAINERID.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// CNI_IFNAME.
    pub ifname: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default)]
    name: String,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    mtu: Option<u32>,
    #[serde(default)]
    bridge: Option<String>,
    #[serde(default)]
    ipam: Option<WireIpam>,
    #[serde(default)]
    dns: Dns,
    #[serde(default)]
    masquerade: Option<Masquerade>,
    #[serde(default)]
    spoof_protection: Option<bool>,
    #[serde(default)]
    data_dir: Option<PathBuf>,
    #[serde(default)]
    agent_state: Option<PathBuf>,
    #[serde(default)]
    runtime_config: RuntimeConfig,
    #[serde(default)]
    prev_result: Option<Value>,
    #[serde(default)]
    args: Option<WireArgs>,
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "list_or_null")]
    valid_attachments: Option<Vec<Attachment>>,
    // libcni 1.1 and 1.2 misspelt the key above, and later versions send both.
    #[serde(default, rename = "cni.dev/attachments", deserialize_with = "list_or_null")]
    attachments: Option<Vec<Attachment>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// libcni writes `null` for "none is valid", which is not the same as saying nothing.
fn list_or_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Ok(Some(Option::deserialize(from)?.unwrap_or_default()))
}

#[derive(Deserialize)]
struct WireIpam {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    ranges: Vec<Vec<Range>>,
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// The `args.cni` convention of the specification.
#[derive(Deserialize)]
struct WireArgs {
    #[serde(default)]
    cni: WireCniArgs,
}

#[derive(Default, Deserialize)]
struct WireCniArgs {
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    mac: Option<String>,
}

/// Top-level fields that are not ours to read and not ours to refuse.
const STANDARD: [&str; 8] = [
    "cniVersion",
    "type",
    "capabilities",
    "cniVersions",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "plugins",
];

impl NetConf {
    /// Reads and validates the configuration for one verb.
    pub fn read(bytes: &[u8], command: Command) -> Result<Self> {
        let raw: Value = serde_json::from_slice(bytes).map_err(|error| {
            CniError::new(Code::Decode, format!("the network configuration is not JSON: {error}"))
                .details("the runtime passes it on stdin; check the file in its CNI configuration directory")
        })?;
        // The version decides how to answer, so it is read before anything else may fail.
        let version = SpecVersion::parse(raw.get("cniVersion").and_then(Value::as_str))?;
        let strict = matches!(command, Command::Add | Command::Check | Command::Status);
        check_verb(command, version)?;
        let whole = Wire::deserialize(&raw);
        // Removal depends on few fields, and must not fail for the others.
        let wire = if strict { whole } else { whole.or_else(|_| Wire::deserialize(essentials(&raw))) };
        let wire = wire.map_err(|error| {
            CniError::new(Code::Decode, format!("the network configuration cannot be read: {error}"))
        })?;
        wire.check_name()?;
        if strict {
            wire.check_fields()?;
        }
        wire.finish(version, command, raw)
    }
}

/// What it takes to find an attachment and to tell a foreign `ipam` plugin.
fn essentials(raw: &Value) -> Value {
    let mut kept = serde_json::Map::new();
    for key in ["name", "dataDir", "cni.dev/valid-attachments", "cni.dev/attachments"] {
        kept.extend(raw.get(key).map(|value| (key.to_owned(), value.clone())));
    }
    if let Some(kind) = raw.pointer("/ipam/type") {
        kept.insert("ipam".to_owned(), serde_json::json!({ "type": kind }));
    }
    Value::Object(kept)
}

/// Verbs came with versions: asking for one in an older version is an error of the runtime.
fn check_verb(command: Command, version: SpecVersion) -> Result<()> {
    let since = match command {
        Command::Add | Command::Del | Command::Version => return Ok(()),
        Command::Check => SpecVersion::V0_4_0,
        Command::Gc | Command::Status => SpecVersion::V1_1_0,
    };
    if version >= since {
        return Ok(());
    }
    Err(CniError::new(
        Code::IncompatibleVersion,
        format!("{command:?} exists since cniVersion {since}, and the configuration says {version}"),
    ))
}

impl Wire {
    fn check_name(&self) -> Result<()> {
        if self.name.is_empty() {
            return Err(invalid("the network has no name", "set `name` in the network configuration"));
        }
        if !crate::spec::is_identifier(&self.name) {
            return Err(invalid(
                format!("the network's name {:?} has characters it may not have", self.name),
                "it must start with a letter or digit and go on with letters, digits, '_', '.' or '-'",
            ));
        }
        Ok(())
    }

    /// A misspelt field would otherwise silently do nothing. Keys with a domain belong to somebody else.
    fn check_fields(&self) -> Result<()> {
        let known = |key: &str| STANDARD.contains(&key) || key.contains('/');
        let top = self.rest.iter().find(|(key, _)| !known(key)).map(|(key, value)| (key.clone(), value));
        let own_ipam = self.ipam.as_ref().filter(|ipam| ipam.is_own());
        let inner = own_ipam.and_then(|ipam| ipam.rest.iter().next());
        let found = top.or_else(|| inner.map(|(key, value)| (format!("ipam.{key}"), value)));
        let Some((key, value)) = found else { return Ok(()) };
        Err(CniError::new(Code::UnsupportedField, format!("unknown field {key:?} with value {value}"))
            .details("remove it from the network configuration, or correct its spelling"))
    }

    fn finish(self, version: SpecVersion, command: Command, raw: Value) -> Result<NetConf> {
        let strict = matches!(command, Command::Add | Command::Check | Command::Status);
        if let Some(mtu) = self.mtu.filter(|mtu| strict && *mtu != 0 && !(MIN_MTU..=MAX_MTU).contains(mtu)) {
            return Err(invalid(
                format!("mtu {mtu} is outside {MIN_MTU}..={MAX_MTU}"),
                "correct `mtu`, or leave it out to take that of the default route's device",
            ));
        }
        if strict && self.mode == Mode::Bridge && self.spoof_protection == Some(true) {
            return Err(CniError::new(
                Code::UnsupportedField,
                "\"spoofProtection\" with value true in mode bridge",
            )
            .details(
                "ports of a bridge are not told apart by the node's rules: use mode routed, or remove it",
            ));
        }
        let mut runtime = self.runtime_config;
        if let Some(WireArgs { cni }) = self.args {
            runtime.adopt_args(cni.ips, cni.mac);
        }
        // A runtime whose cache is damaged sends no usable prevResult with DEL, and DEL does not need one.
        let prev_result = match (&self.prev_result, command) {
            (None | Some(Value::Null), _) | (_, Command::Del) => {
                self.prev_result.as_ref().and_then(|value| Success::from_json(value).ok())
            }
            (Some(value), _) => Some(Success::from_json(value)?),
        };
        if strict {
            runtime.validate()?;
        }
        let ipam = ipam(self.ipam, &runtime, strict)?;
        Ok(NetConf {
            version,
            name: self.name,
            mode: self.mode,
            mtu: self.mtu.filter(|mtu| *mtu != 0),
            bridge: self.bridge.unwrap_or_else(|| "trysail0".to_owned()),
            ipam,
            dns: self.dns,
            masquerade: self.masquerade,
            spoof_protection: self.spoof_protection.unwrap_or(self.mode == Mode::Routed),
            data_dir: self.data_dir.unwrap_or_else(|| DATA_DIR.into()),
            agent_state: self.agent_state,
            runtime,
            prev_result,
            valid_attachments: self.valid_attachments.or(self.attachments),
            raw,
        })
    }
}

impl WireIpam {
    fn is_own(&self) -> bool {
        self.kind.as_deref().is_none_or(|kind| kind == PLUGIN)
    }
}

fn ipam(wire: Option<WireIpam>, runtime: &RuntimeConfig, strict: bool) -> Result<Ipam> {
    let Some(wire) = wire else { return Ok(Ipam::Absent) };
    if !wire.is_own() {
        return Ok(Ipam::Delegated(wire.kind.unwrap_or_default()));
    }
    let all = wire.ranges.into_iter().chain(runtime.ip_ranges.iter().cloned());
    if !strict {
        let sets = all.filter_map(|set| RangeSet::new(set).ok()).collect();
        return Ok(Ipam::Own { sets, routes: wire.routes });
    }
    let sets = all.map(RangeSet::new).collect::<Result<Vec<_>>>()?;
    if sets.is_empty() {
        return Err(invalid(
            "ipam.ranges is empty: there is no address to give to a pod",
            "list the node's podCIDRs",
        ));
    }
    ranges::check_overlap(&sets)?;
    Ok(Ipam::Own { sets, routes: wire.routes })
}

impl NetConf {
    /// The range sets; none when somebody else gives out addresses.
    pub fn range_sets(&self) -> &[RangeSet] {
        match &self.ipam {
            Ipam::Own { sets, .. } => sets,
            Ipam::Delegated(_) | Ipam::Absent => &[],
        }
    }

    /// Routes of a pod with these addresses.
    pub fn routes_for(&self, ips: &[IpAddr]) -> Vec<Route> {
        let configured = match &self.ipam {
            Ipam::Own { routes, .. } => routes.as_slice(),
            Ipam::Delegated(_) | Ipam::Absent => &[],
        };
        if !configured.is_empty() {
            let has = |v4: bool| ips.iter().any(|ip| ip.is_ipv4() == v4);
            return configured.iter().filter(|route| has(route.dst.addr().is_ipv4())).cloned().collect();
        }
        let mut families: Vec<bool> = ips.iter().map(IpAddr::is_ipv4).collect();
        families.dedup();
        families.into_iter().map(|v4| Route::to(default_route(v4))).collect()
    }
}

/// 0.0.0.0/0 or ::/0.
pub(crate) fn default_route(v4: bool) -> IpNet {
    if v4 { IpNet::V4(ipnet::Ipv4Net::default()) } else { IpNet::V6(ipnet::Ipv6Net::default()) }
}

pub(crate) fn invalid(msg: impl Into<String>, details: impl Into<String>) -> CniError {
    CniError::new(Code::InvalidNetworkConfig, msg).details(details)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value, command: Command) -> Result<NetConf> {
        NetConf::read(value.to_string().as_bytes(), command)
    }

    fn base() -> Value {
        json!({ "cniVersion": "1.1.0", "name": "pods", "type": "trysail-cni",
                "ipam": { "ranges": [[{ "subnet": "10.244.1.0/24" }], [{ "subnet": "fd00:1::/64" }]] } })
    }

    fn with(key: &str, value: Value) -> Value {
        let mut conf = base();
        conf[key] = value;
        conf
    }

    fn merged(fields: &[(&str, Value)]) -> Value {
        fields.iter().fold(base(), |mut conf, (key, value)| {
            conf[*key] = value.clone();
            conf
        })
    }

    fn refused(conf: &Value) -> String {
        let error = read(conf, Command::Add).expect_err("it must be refused");
        format!("{}: {error}", error.code as u32)
    }

    /// Each message names the field and the way out.
    #[test]
    fn bad_configurations_are_explained() {
        let cases = [
            with("cniVersion", json!("2.0.0")),
            with("cniVersion", Value::Null),
            with("name", json!("")),
            with("name", json!("a/b")),
            with("mtuu", json!(1400)),
            with("ipam", json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }]], "rangeStart": "x" })),
            with("ipam", json!({ "ranges": [] })),
            with(
                "ipam",
                json!({ "ranges": [[{ "subnet": "10.0.0.0/24" }], [{ "subnet": "10.0.0.128/25" }]] }),
            ),
            with("mtu", json!(600)),
            with("mode", json!("macvlan")),
            merged(&[("mode", json!("bridge")), ("spoofProtection", json!(true))]),
            with("masquerade", json!({ "excludes": [] })),
            with("runtimeConfig", json!({ "portMappings": [{ "hostPort": 70000, "containerPort": 1 }] })),
            with("prevResult", json!({ "ips": [{ "address": "nowhere" }] })),
        ];
        let text: String = cases.iter().map(|conf| refused(conf) + "\n").collect();
        insta::assert_snapshot!(text, @r#"
        1: cniVersion "2.0.0" is not supported; supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0; change cniVersion in the network configuration
        1: the configuration has no cniVersion, which means 0.1.0: not supported; supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0; change cniVersion in the network configuration
        7: the network has no name; set `name` in the network configuration
        7: the network's name "a/b" has characters it may not have; it must start with a letter or digit and go on with letters, digits, '_', '.' or '-'
        2: unknown field "mtuu" with value 1400; remove it from the network configuration, or correct its spelling
        2: unknown field "ipam.rangeStart" with value "x"; remove it from the network configuration, or correct its spelling
        7: ipam.ranges is empty: there is no address to give to a pod; list the node's podCIDRs
        7: ipam.ranges: 10.0.0.0/24 and 10.0.0.128/25 overlap; every address may be in one range only
        7: mtu 600 is outside 1280..=65535; correct `mtu`, or leave it out to take that of the default route's device
        6: the network configuration cannot be read: unknown variant `macvlan`, expected `routed` or `bridge`
        2: "spoofProtection" with value true in mode bridge; ports of a bridge are not told apart by the node's rules: use mode routed, or remove it
        6: the network configuration cannot be read: unknown field `excludes`, expected `exclude`
        6: the network configuration cannot be read: invalid value: integer `70000`, expected u16
        6: prevResult cannot be read: invalid IP address syntax; it is the result of an earlier ADD: the runtime's cache may be damaged
        "#);
        let error = NetConf::read(b"{", Command::Add).unwrap_err();
        assert_eq!(error.code, Code::Decode);
    }

    /// A pod whose network's configuration was broken afterwards can still be removed.
    #[test]
    fn del_and_gc_tolerate_what_add_refuses() {
        for conf in [
            with("mtuu", json!(1400)),
            with("mtu", json!(1)),
            with("ipam", json!({ "ranges": [] })),
            with("ipam", json!({ "ranges": [[{ "subnet": "10.0.0.0/31" }]] })),
            with("runtimeConfig", json!({ "mac": "nonsense" })),
            with("runtimeConfig", json!({ "portMappings": [{ "hostPort": 80 }] })),
            with("runtimeConfig", json!("nonsense")),
            with("mode", json!("macvlan")),
            with("mtu", json!("large")),
            with("dns", json!({ "nameserver": 1 })),
            with("args", json!("nonsense")),
        ] {
            assert!(read(&conf, Command::Add).is_err(), "{conf}");
            assert!(read(&conf, Command::Del).is_ok(), "{conf}");
            assert!(read(&conf, Command::Gc).is_ok(), "{conf}");
        }
        // But not what GC lives by: a list that cannot be read is not an empty one.
        let list = json!([{ "containerID": 1 }]);
        assert!(read(&with("cni.dev/valid-attachments", list), Command::Gc).is_err());
        let damaged = with("prevResult", json!({ "ips": 7 }));
        assert!(read(&damaged, Command::Del).unwrap().prev_result.is_none());
    }

    #[test]
    fn verbs_need_the_version_that_brought_them() {
        for (command, version, accepted) in [
            (Command::Check, "0.3.1", false),
            (Command::Check, "0.4.0", true),
            (Command::Gc, "1.0.0", false),
            (Command::Gc, "1.1.0", true),
            (Command::Status, "1.0.0", false),
            (Command::Status, "1.1.0", true),
            (Command::Add, "0.3.1", true),
            (Command::Del, "0.3.1", true),
        ] {
            let result = read(&with("cniVersion", json!(version)), command);
            assert_eq!(result.is_ok(), accepted, "{command:?} {version}");
            assert!(accepted || result.unwrap_err().code == Code::IncompatibleVersion);
        }
    }

    /// libcni sends either key, or both.
    #[test]
    fn both_spellings_of_the_list_for_gc_are_read() {
        let list = json!([{ "containerID": "c1", "ifname": "eth0" }]);
        for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
            let conf = read(&with(key, list.clone()), Command::Gc).unwrap();
            assert_eq!(conf.valid_attachments.unwrap()[0].container_id, "c1", "{key}");
        }
        let none = read(&with("cni.dev/valid-attachments", Value::Null), Command::Gc).unwrap();
        assert_eq!(none.valid_attachments, Some(Vec::new()), "null is an empty list");
        assert_eq!(read(&base(), Command::Gc).unwrap().valid_attachments, None);
        let mut both = with("cni.dev/valid-attachments", list);
        both["cni.dev/attachments"] = json!([]);
        assert_eq!(read(&both, Command::Gc).unwrap().valid_attachments.unwrap().len(), 1);
    }

    #[test]
    fn routes_default_to_the_families_of_the_pod() {
        let conf = read(&base(), Command::Add).unwrap();
        let ips = ["10.244.1.2".parse().unwrap(), "fd00:1::2".parse().unwrap()];
        let to = |ips: &[IpAddr]| {
            conf.routes_for(ips).iter().map(|route| route.dst.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(to(&ips), ["0.0.0.0/0", "::/0"]);
        assert_eq!(to(&ips[1..]), ["::/0"]);
    }
}
