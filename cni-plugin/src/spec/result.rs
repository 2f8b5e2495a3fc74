//! The result of ADD, written exactly as the version that was asked for knows it, and `prevResult` read from any.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{CniError, Code, Result, SpecVersion};

/// What ADD made. Holds everything that version 1.1.0 knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// Interfaces, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<Ip>,
    /// Routes in the container.
    pub routes: Vec<Route>,
    /// Name resolution.
    pub dns: Dns,
}

/// An interface that ADD made or found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Hardware address.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The container's namespace; empty for the host's interfaces.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Since 1.1.0; other plugins' business, passed through.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub socket_path: String,
    /// Since 1.1.0; other plugins' business, passed through.
    #[serde(default, rename = "pciID", skip_serializing_if = "String::is_empty")]
    pub pci_id: String,
}

/// An address in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ip {
    /// Index into `interfaces`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
    /// With the length of its prefix.
    pub address: IpNet,
    /// Where the default route goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// A route in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Destination.
    pub dst: IpNet,
    /// Next hop; that of the address's family if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gw: Option<IpAddr>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advmss: Option<u32>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u32>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Since 1.1.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<u8>,
}

/// Name resolution of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// Servers, most wanted first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// Search list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Route {
    /// A plain route.
    pub fn to(dst: IpNet) -> Self {
        Self { dst, gw: None, mtu: None, advmss: None, priority: None, table: None, scope: None }
    }
}

impl Success {
    /// The object as it goes to stdout.
    pub fn to_json(&self, version: SpecVersion) -> Value {
        let Self { interfaces, ips, routes, dns } = self;
        let mut object = Map::new();
        object.insert("cniVersion".into(), json!(version.as_str()));
        let mut list = |key: &str, items: Vec<Value>| {
            if !items.is_empty() {
                object.insert(key.into(), Value::Array(items));
            }
        };
        list("interfaces", interfaces.iter().map(|interface| interface_json(interface, version)).collect());
        list("ips", ips.iter().map(|ip| ip_json(ip, version)).collect());
        list("routes", routes.iter().map(|route| route_json(route, version)).collect());
        if *dns != Dns::default() {
            object.insert("dns".into(), json!(dns));
        }
        Value::Object(object)
    }

    /// Reads a `prevResult`, which has the version of the configuration that it stands in.
    pub fn from_json(value: &Value) -> Result<Self> {
        #[derive(Deserialize)]
        struct Wire {
            #[serde(default)]
            interfaces: Vec<Interface>,
            #[serde(default)]
            ips: Vec<Ip>,
            #[serde(default)]
            routes: Vec<Route>,
            #[serde(default)]
            dns: Dns,
        }
        let wire = Wire::deserialize(value).map_err(|error| {
            CniError::new(Code::Decode, format!("prevResult cannot be read: {error}"))
                .details("it is the result of an earlier ADD: the runtime's cache may be damaged")
        })?;
        let Wire { interfaces, ips, routes, dns } = wire;
        if let Some(ip) = ips.iter().find(|ip| ip.interface.is_some_and(|index| index >= interfaces.len())) {
            return Err(CniError::new(
                Code::Decode,
                format!(
                    "prevResult: the address {} belongs to an interface that is not in the list",
                    ip.address
                ),
            ));
        }
        Ok(Self { interfaces, ips, routes, dns })
    }
}

fn interface_json(interface: &Interface, version: SpecVersion) -> Value {
    if version >= SpecVersion::V1_1_0 {
        return json!(interface);
    }
    json!(Interface { mtu: None, socket_path: String::new(), pci_id: String::new(), ..interface.clone() })
}

fn ip_json(ip: &Ip, version: SpecVersion) -> Value {
    let mut value = json!(ip);
    if version < SpecVersion::V1_0_0 {
        value["version"] = json!(if ip.address.addr().is_ipv4() { "4" } else { "6" });
    }
    value
}

fn route_json(route: &Route, version: SpecVersion) -> Value {
    if version >= SpecVersion::V1_1_0 {
        return json!(route);
    }
    json!(Route { gw: route.gw, ..Route::to(route.dst) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Success {
        Success {
            interfaces: vec![
                Interface { name: "tsvhost".into(), mac: "02:00:00:00:00:01".into(), ..Interface::default() },
                Interface {
                    name: "eth0".into(),
                    mac: "02:00:00:00:00:02".into(),
                    mtu: Some(1450),
                    sandbox: "/run/netns/p".into(),
                    socket_path: "/run/sock".into(),
                    pci_id: "0000:1".into(),
                },
            ],
            ips: vec![
                Ip {
                    interface: Some(1),
                    address: "10.1.2.3/32".parse().unwrap(),
                    gateway: Some("169.254.1.1".parse().unwrap()),
                },
                Ip { interface: Some(1), address: "fd00::3/128".parse().unwrap(), gateway: None },
            ],
            routes: vec![Route {
                gw: Some("169.254.1.1".parse().unwrap()),
                mtu: Some(1400),
                advmss: Some(1360),
                priority: Some(9),
                table: Some(100),
                scope: Some(253),
                ..Route::to("0.0.0.0/0".parse().unwrap())
            }],
            dns: Dns { nameservers: vec!["10.96.0.10".into()], ..Dns::default() },
        }
    }

    fn lines(version: SpecVersion) -> String {
        let value = full().to_json(version);
        let all =
            ["interfaces", "ips", "routes"].iter().flat_map(|key| value[*key].as_array().unwrap().clone());
        let head = format!("{} {}", value["cniVersion"], value["dns"]);
        [head].into_iter().chain(all.map(|item| item.to_string())).collect::<Vec<_>>().join("\n")
    }

    /// No version may see a field that came later, or miss one that it demands.
    #[test]
    fn each_version_has_its_own_fields() {
        insta::assert_snapshot!(lines(SpecVersion::V0_3_1), @r#"
        "0.3.1" {"nameservers":["10.96.0.10"]}
        {"mac":"02:00:00:00:00:01","name":"tsvhost"}
        {"mac":"02:00:00:00:00:02","name":"eth0","sandbox":"/run/netns/p"}
        {"address":"10.1.2.3/32","gateway":"169.254.1.1","interface":1,"version":"4"}
        {"address":"fd00::3/128","interface":1,"version":"6"}
        {"dst":"0.0.0.0/0","gw":"169.254.1.1"}
        "#);
        insta::assert_snapshot!(lines(SpecVersion::V1_0_0), @r#"
        "1.0.0" {"nameservers":["10.96.0.10"]}
        {"mac":"02:00:00:00:00:01","name":"tsvhost"}
        {"mac":"02:00:00:00:00:02","name":"eth0","sandbox":"/run/netns/p"}
        {"address":"10.1.2.3/32","gateway":"169.254.1.1","interface":1}
        {"address":"fd00::3/128","interface":1}
        {"dst":"0.0.0.0/0","gw":"169.254.1.1"}
        "#);
        insta::assert_snapshot!(lines(SpecVersion::V1_1_0), @r#"
        "1.1.0" {"nameservers":["10.96.0.10"]}
        {"mac":"02:00:00:00:00:01","name":"tsvhost"}
        {"mac":"02:00:00:00:00:02","mtu":1450,"name":"eth0","pciID":"0000:1","sandbox":"/run/netns/p","socketPath":"/run/sock"}
        {"address":"10.1.2.3/32","gateway":"169.254.1.1","interface":1}
        {"address":"fd00::3/128","interface":1}
        {"advmss":1360,"dst":"0.0.0.0/0","gw":"169.254.1.1","mtu":1400,"priority":9,"scope":253,"table":100}
        "#);
        let renamed = lines(SpecVersion::V0_3_1).replace("0.3.1", "0.4.0");
        assert_eq!(lines(SpecVersion::V0_4_0), renamed);
    }

    /// What nobody set is not written: an empty `dns` made old runtimes overwrite a pod's resolver.
    #[test]
    fn empty_lists_are_left_out() {
        let text = Success::default().to_json(SpecVersion::V1_1_0).to_string();
        assert_eq!(text, r#"{"cniVersion":"1.1.0"}"#);
    }

    #[test]
    fn a_result_of_any_version_reads_back() {
        assert_eq!(Success::from_json(&full().to_json(SpecVersion::V1_1_0)).unwrap(), full());
        let old = Success::from_json(&full().to_json(SpecVersion::V0_3_1)).unwrap();
        assert_eq!(old.ips, full().ips);
        assert_eq!(old.interfaces[1].mtu, None);
    }

    #[test]
    fn an_address_of_no_interface_is_refused() {
        let value = json!({ "ips": [{ "address": "10.0.0.1/24", "interface": 0 }] });
        let error = Success::from_json(&value).unwrap_err();
        assert_eq!(error.code, Code::Decode);
        assert!(error.msg.contains("10.0.0.1/24"), "{error}");
    }
}
