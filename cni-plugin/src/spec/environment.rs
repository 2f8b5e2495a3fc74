//! The CNI_* variables: which a verb needs, and what they may contain.
//!
//! The rules for names are the reference library's (`pkg/utils` of containernetworking/cni), because runtimes rely
//! on plugins that agree about them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::{CniError, Code, Result};

/// The kernel's IFNAMSIZ, less the terminating zero.
const MAX_IFNAME: usize = 15;

/// A verb of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Attach a container.
    Add,
    /// Detach it.
    Del,
    /// Is it still attached as ADD left it?
    Check,
    /// Remove everything of attachments that are not in the list.
    Gc,
    /// Could ADD succeed now?
    Status,
    /// Which versions are spoken?
    Version,
}

/// What the environment says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// The verb.
    pub command: Command,
    /// Empty where the verb needs none.
    pub container_id: String,
    /// None where the verb needs none, or for DEL once the namespace is gone.
    pub netns: Option<PathBuf>,
    /// Name of the interface in the container.
    pub ifname: String,
    /// CNI_ARGS.
    pub args: Arguments,
    /// Where delegated plugins are looked for.
    pub path: Vec<PathBuf>,
}

/// `CNI_ARGS`: `KEY=VALUE;KEY=VALUE`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments(BTreeMap<String, String>);

impl Arguments {
    /// Text without `=` between semicolons is refused, as the reference library does.
    pub fn parse(text: &str) -> Result<Self> {
        let mut all = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                CniError::new(Code::InvalidEnvironment, format!("CNI_ARGS: {pair:?} is not KEY=VALUE"))
            })?;
            all.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self(all))
    }

    /// One value; empty ones count as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// `namespace/name` of the pod, when Kubernetes asks.
    pub fn pod(&self) -> Option<String> {
        Some(format!("{}/{}", self.get("K8S_POD_NAMESPACE")?, self.get("K8S_POD_NAME")?))
    }
}

impl Command {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "ADD" => Self::Add,
            "DEL" => Self::Del,
            "CHECK" => Self::Check,
            "GC" => Self::Gc,
            "STATUS" => Self::Status,
            "VERSION" => Self::Version,
            _ => return None,
        })
    }

    /// Variables without which the verb makes no sense. CNI_PATH is wanted only by who delegates, so its absence is
    /// not held against a runtime that leaves it out.
    fn needs(self) -> &'static [&'static str] {
        match self {
            Self::Add | Self::Check => &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"],
            Self::Del => &["CNI_CONTAINERID", "CNI_IFNAME"],
            Self::Gc | Self::Status | Self::Version => &[],
        }
    }
}

impl Environment {
    /// Reads and validates the variables. `None`: there is no CNI_COMMAND at all.
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>> {
        let get = |name: &str| get(name).unwrap_or_default();
        let command = get("CNI_COMMAND");
        if command.is_empty() {
            return Ok(None);
        }
        let bad = |msg: String| CniError::new(Code::InvalidEnvironment, msg);
        let command = Command::parse(&command).ok_or_else(|| {
            bad(format!("CNI_COMMAND {command:?} is unknown"))
                .details("known: ADD, DEL, CHECK, GC, STATUS, VERSION")
        })?;
        let missing: Vec<&str> =
            command.needs().iter().copied().filter(|name| get(name).is_empty()).collect();
        if !missing.is_empty() {
            return Err(bad(format!("required variables are missing: {}", missing.join(", ")))
                .details("the container runtime sets them"));
        }
        let environment = Self {
            command,
            container_id: get("CNI_CONTAINERID"),
            netns: Some(get("CNI_NETNS")).filter(|path| !path.is_empty()).map(PathBuf::from),
            ifname: get("CNI_IFNAME"),
            args: Arguments::parse(&get("CNI_ARGS"))?,
            path: get("CNI_PATH").split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
        };
        if !command.needs().is_empty() {
            validate_id("CNI_CONTAINERID", &environment.container_id)?;
            validate_ifname(&environment.ifname)?;
        }
        Ok(Some(environment))
    }
}

/// Container ids and network names: a letter or digit, then letters, digits, `_`, `.`, `-`.
pub(crate) fn is_identifier(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

fn validate_id(variable: &str, id: &str) -> Result<()> {
    if is_identifier(id) {
        return Ok(());
    }
    Err(CniError::new(Code::InvalidEnvironment, format!("{variable} {id:?} has characters it may not have"))
        .details("it must start with a letter or digit and go on with letters, digits, '_', '.' or '-'"))
}

/// The kernel's rules for names of interfaces (`dev_valid_name`).
fn validate_ifname(name: &str) -> Result<()> {
    let reason = if name.len() > MAX_IFNAME {
        "it is longer than 15 bytes"
    } else if name == "." || name == ".." {
        "it is '.' or '..'"
    } else if name.bytes().any(|byte| b"/:".contains(&byte) || byte.is_ascii_whitespace()) {
        "it contains '/', ':' or a space"
    } else {
        return Ok(());
    };
    Err(CniError::new(Code::InvalidEnvironment, format!("CNI_IFNAME {name:?} names no interface: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Option<Environment>> {
        Environment::read(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn refused(variables: &[(&str, &str)]) -> String {
        let error = read(variables).expect_err("it must be refused");
        assert_eq!(error.code, Code::InvalidEnvironment, "{error}");
        error.to_string()
    }

    /// Every missing variable is named, and only those the verb needs.
    #[test]
    fn each_verb_says_what_it_misses() {
        for (verb, missing) in [
            ("ADD", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
            ("CHECK", "CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME"),
            ("DEL", "CNI_CONTAINERID, CNI_IFNAME"),
        ] {
            let error = refused(&[("CNI_COMMAND", verb)]);
            assert_eq!(
                error,
                format!("required variables are missing: {missing}; the container runtime sets them")
            );
        }
        for verb in ["GC", "STATUS", "VERSION"] {
            assert!(read(&[("CNI_COMMAND", verb)]).unwrap().is_some(), "{verb}");
        }
        assert!(read(&[]).unwrap().is_none());
    }

    /// A namespace that is gone must not keep DEL from its work.
    #[test]
    fn del_needs_no_namespace() {
        let read = read(&[("CNI_COMMAND", "DEL"), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")]);
        assert_eq!(read.unwrap().unwrap().netns, None);
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        let with = |id: &str, ifname: &str| {
            refused(&[
                ("CNI_COMMAND", "ADD"),
                ("CNI_CONTAINERID", id),
                ("CNI_NETNS", "/run/netns/x"),
                ("CNI_IFNAME", ifname),
            ])
        };
        assert!(with("-a", "eth0").contains("CNI_CONTAINERID \"-a\""));
        assert!(with("a/../b", "eth0").contains("CNI_CONTAINERID"));
        assert!(with("a", "sixteen-letters-").contains("longer than 15"));
        assert!(with("a", "..").contains("'.' or '..'"));
        assert!(with("a", "a/b").contains("'/', ':' or a space"));
        assert!(with("a", "a b").contains("'/', ':' or a space"));
        assert!(refused(&[("CNI_COMMAND", "add")]).contains("known: ADD"));
        let args = refused(&[
            ("CNI_COMMAND", "DEL"),
            ("CNI_CONTAINERID", "c1"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "A=1;B"),
        ]);
        assert!(args.contains("\"B\" is not KEY=VALUE"), "{args}");
    }

    #[test]
    fn arguments_of_kubernetes_name_the_pod() {
        let text = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;K8S_POD_UID=;IP=10.1.2.3";
        let args = Arguments::parse(text).unwrap();
        assert_eq!(args.pod().as_deref(), Some("shop/web-0"));
        assert_eq!(args.get("K8S_POD_UID"), None);
        assert_eq!(args.get("IP"), Some("10.1.2.3"));
    }
}
