//! What the runtime adds to the configuration per call: `runtimeConfig`, and the older ways to say the same.
//!
//! Go decodes JSON without minding case, and containerd makes use of it: what it sends has `HostPort` where the
//! convention says `hostPort`. Both are read.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Range, invalid};
use crate::spec::{Arguments, CniError, Code, Result};

/// Capability arguments. Unknown ones are other plugins' business.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RuntimeConfig {
    /// Host ports.
    #[serde(deserialize_with = "or_default")]
    pub port_mappings: Vec<PortMapping>,
    /// Shaping.
    pub bandwidth: Option<Bandwidth>,
    /// Hardware address of the pod's interface.
    pub mac: Option<String>,
    /// Wanted addresses, `ip` or `ip/len`.
    #[serde(deserialize_with = "or_default")]
    pub ips: Vec<String>,
    /// More range sets.
    #[serde(deserialize_with = "or_default")]
    pub ip_ranges: Vec<Vec<Range>>,
    /// Names of the pod in this network; shown, not resolved.
    #[serde(deserialize_with = "or_default")]
    pub aliases: Vec<String>,
}

/// Go's encoders write `null` for an empty list.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Transport protocol of a host port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    #[default]
    #[serde(alias = "TCP")]
    Tcp,
    /// UDP.
    #[serde(alias = "UDP")]
    Udp,
    /// SCTP.
    #[serde(alias = "SCTP")]
    Sctp,
}

impl Protocol {
    /// IANA's number.
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

/// A port of the node that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// The node's port; 0 means none.
    #[serde(default, alias = "HostPort")]
    pub host_port: u16,
    /// The pod's port.
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    /// Protocol.
    #[serde(default, alias = "Protocol")]
    pub protocol: Protocol,
    /// Only on this address of the node; all if absent.
    #[serde(
        default,
        rename = "hostIP",
        alias = "HostIP",
        skip_serializing_if = "Option::is_none",
        deserialize_with = "ip_or_empty"
    )]
    pub host_ip: Option<IpAddr>,
}

/// containerd writes an empty text where there is no address.
pub(super) fn ip_or_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
    let text = Option::<String>::deserialize(from)?.unwrap_or_default();
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

impl PortMapping {
    /// Whether it applies to addresses of this family.
    pub fn serves(&self, v4: bool) -> bool {
        self.host_ip.is_none_or(|ip| ip.is_ipv4() == v4)
    }

    /// The address it is bound to; none for all.
    pub fn bound_to(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether both want the same port of the same address.
    pub fn conflicts(&self, other: &Self) -> bool {
        let same_address = match (self.bound_to(), other.bound_to()) {
            (Some(one), Some(other)) => one == other,
            (Some(one), None) => other.serves(one.is_ipv4()),
            (None, Some(other)) => self.serves(other.is_ipv4()),
            (None, None) => [true, false].into_iter().any(|v4| self.serves(v4) && other.serves(v4)),
        };
        same_address && self.host_port == other.host_port && self.protocol == other.protocol
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        match self.bound_to() {
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:{}/{protocol}", self.host_port),
            Some(ip) => write!(f, "{ip}:{}/{protocol}", self.host_port),
            None => write!(f, "{}/{protocol}", self.host_port),
        }
    }
}

/// Rates in bits per second, bursts in bits; 0 means no limit. Seen from the pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Bandwidth {
    /// Towards the pod.
    #[serde(alias = "IngressRate")]
    pub ingress_rate: u64,
    /// Towards the pod.
    #[serde(alias = "IngressBurst")]
    pub ingress_burst: u64,
    /// From the pod.
    #[serde(alias = "EgressRate")]
    pub egress_rate: u64,
    /// From the pod.
    #[serde(alias = "EgressBurst")]
    pub egress_burst: u64,
}

impl RuntimeConfig {
    /// The `args.cni` convention: older than `runtimeConfig`, which wins.
    pub(super) fn adopt_args(&mut self, ips: Vec<String>, mac: Option<String>) {
        if self.ips.is_empty() {
            self.ips = ips;
        }
        if self.mac.is_none() {
            self.mac = mac;
        }
    }

    /// `IP` and `MAC` of CNI_ARGS: the oldest way, which both others win over.
    pub fn adopt_environment(&mut self, args: &Arguments) {
        let ips = args.get("IP").into_iter().flat_map(|text| text.split(',')).map(str::to_owned).collect();
        self.adopt_args(ips, args.get("MAC").map(str::to_owned));
    }

    /// Refuses what cannot be carried out.
    pub fn validate(&self) -> Result<()> {
        self.mac()?;
        self.wanted_ips()?;
        for (index, one) in self.port_mappings.iter().enumerate() {
            if one.host_port != 0 && one.container_port == 0 {
                return Err(invalid(
                    format!("runtimeConfig.portMappings: host port {one} leads to container port 0"),
                    "set containerPort",
                ));
            }
            let later = self.port_mappings.iter().skip(index + 1);
            if let Some(other) = later.filter(|_| one.host_port != 0).find(|other| one.conflicts(other)) {
                return Err(invalid(
                    format!("runtimeConfig.portMappings: {one} and {other} are the same port of the node"),
                    "remove one of them from the pod",
                ));
            }
        }
        self.bandwidth.map_or(Ok(()), Bandwidth::validate)
    }

    /// The wanted hardware address.
    pub fn mac(&self) -> Result<Option<[u8; 6]>> {
        self.mac.as_deref().filter(|mac| !mac.is_empty()).map(parse_mac).transpose()
    }

    /// The wanted addresses.
    pub fn wanted_ips(&self) -> Result<Vec<IpAddr>> {
        let parse = |text: &String| {
            let address = text.split_once('/').map_or(text.as_str(), |(address, _)| address).trim();
            address.parse().map_err(|_| {
                invalid(format!("runtimeConfig.ips: {text:?} is no address"), "write an IPv4 or IPv6 address")
            })
        };
        self.ips.iter().map(parse).collect()
    }

    /// Host ports that were asked for.
    pub fn ports(&self) -> Vec<PortMapping> {
        self.port_mappings.iter().filter(|port| port.host_port != 0).cloned().collect()
    }
}

impl Bandwidth {
    /// Rates and bursts come in pairs, as the reference plugin demands.
    fn validate(self) -> Result<()> {
        for (name, rate, burst) in [
            ("ingress", self.ingress_rate, self.ingress_burst),
            ("egress", self.egress_rate, self.egress_burst),
        ] {
            if (rate == 0) != (burst == 0) {
                return Err(invalid(
                    format!("runtimeConfig.bandwidth: {name}Rate is {rate} and {name}Burst is {burst}"),
                    "both must be set, or neither",
                ));
            }
        }
        Ok(())
    }
}

/// A unicast hardware address.
pub(crate) fn parse_mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text
        .split(':')
        .filter(|part| part.len() == 2)
        .filter_map(|part| u8::from_str_radix(part, 16).ok())
        .collect();
    let well_formed = text.split(':').count() == 6;
    match <[u8; 6]>::try_from(bytes) {
        Ok(mac) if well_formed && mac[0] & 1 == 0 && mac != [0; 6] => Ok(mac),
        _ => Err(CniError::new(
            Code::InvalidNetworkConfig,
            format!("mac {text:?} is no unicast hardware address"),
        )
        .details("write six pairs of hexadecimal digits with ':' between them, the first pair even")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn port(text: serde_json::Value) -> PortMapping {
        serde_json::from_value(text).unwrap()
    }

    /// The conformance spec for host ports has three pods on one port number that must all start.
    #[test]
    fn ports_conflict_only_on_a_common_address_and_protocol() {
        let all = port(json!({ "hostPort": 80, "containerPort": 1 }));
        let local = port(json!({ "hostPort": 80, "containerPort": 2, "hostIP": "127.0.0.1" }));
        let node =
            port(json!({ "hostPort": 80, "containerPort": 3, "hostIP": "10.0.0.1", "protocol": "tcp" }));
        let udp =
            port(json!({ "hostPort": 80, "containerPort": 3, "hostIP": "10.0.0.1", "protocol": "UDP" }));
        let any_v4 = port(json!({ "hostPort": 80, "containerPort": 4, "hostIP": "0.0.0.0" }));
        let any_v6 = port(json!({ "hostPort": 80, "containerPort": 5, "hostIP": "::" }));
        assert!(all.conflicts(&local) && local.conflicts(&all) && all.conflicts(&any_v6));
        assert!(!local.conflicts(&node) && !node.conflicts(&udp));
        assert!(any_v4.conflicts(&local) && !any_v6.conflicts(&local) && !any_v4.conflicts(&any_v6));
    }

    #[test]
    fn lists_may_be_null_as_go_writes_them() {
        let conf: RuntimeConfig = serde_json::from_value(json!({
            "portMappings": null, "ips": null, "ipRanges": null, "aliases": null, "dns": { "servers": [] }
        }))
        .unwrap();
        assert_eq!(conf, RuntimeConfig::default());
    }

    /// As containerd's library writes it: its types have no names for JSON.
    #[test]
    fn containerds_spelling_is_read() {
        let conf: RuntimeConfig = serde_json::from_value(json!({
            "portMappings": [{ "HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": "" },
                             { "HostPort": 53, "ContainerPort": 5353, "Protocol": "udp", "HostIP": "127.0.0.1" }],
            "bandwidth": { "IngressRate": 1, "IngressBurst": 2, "EgressRate": 3, "EgressBurst": 4 },
            "ipRanges": [[{ "Subnet": "10.0.0.0/24", "RangeStart": "", "RangeEnd": "10.0.0.9", "Gateway": "" }]],
            "dns": { "Servers": [], "Searches": [], "Options": [] }
        }))
        .unwrap();
        let ports: Vec<String> = conf.ports().iter().map(ToString::to_string).collect();
        assert_eq!(ports, ["8080/tcp", "127.0.0.1:53/udp"]);
        let expected = Bandwidth { ingress_rate: 1, ingress_burst: 2, egress_rate: 3, egress_burst: 4 };
        assert_eq!(conf.bandwidth, Some(expected));
        let range = &conf.ip_ranges[0][0];
        assert_eq!((range.range_start, range.range_end), (None, Some("10.0.0.9".parse().unwrap())));
    }

    /// runtimeConfig wins over args, args over CNI_ARGS.
    #[test]
    fn newer_ways_to_ask_win() {
        let mut conf = RuntimeConfig::default();
        conf.adopt_args(vec!["10.0.0.2".into()], None);
        conf.adopt_environment(&Arguments::parse("IP=10.0.0.3;MAC=02:00:00:00:00:09").unwrap());
        assert_eq!(conf.wanted_ips().unwrap(), ["10.0.0.2".parse::<IpAddr>().unwrap()]);
        assert_eq!(conf.mac().unwrap(), Some([2, 0, 0, 0, 0, 9]));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        for bad in ["", "x", "01:00:00:00:00:00", "02:00:00:00:00", "02:00:00:00:00:00:00", "2:0:0:0:0:0"] {
            assert!(parse_mac(bad).is_err(), "{bad}");
        }
        let refused = |value| {
            let conf: RuntimeConfig = serde_json::from_value(value).unwrap();
            conf.validate().unwrap_err().to_string()
        };
        let text = [
            refused(json!({ "bandwidth": { "ingressRate": 1000 } })),
            refused(json!({ "ips": ["10.0.0"] })),
            refused(json!({ "portMappings": [{ "hostPort": 80, "containerPort": 0 }] })),
            refused(json!({ "portMappings": [
                { "hostPort": 80, "containerPort": 1 }, { "hostPort": 80, "containerPort": 2, "hostIP": "::1" }] })),
        ];
        insta::assert_snapshot!(text.join("\n"), @r#"
        runtimeConfig.bandwidth: ingressRate is 1000 and ingressBurst is 0; both must be set, or neither
        runtimeConfig.ips: "10.0.0" is no address; write an IPv4 or IPv6 address
        runtimeConfig.portMappings: host port 80/tcp leads to container port 0; set containerPort
        runtimeConfig.portMappings: 80/tcp and [::1]:80/tcp are the same port of the node; remove one of them from the pod
        "#);
    }
}
