//! The verbs of the specification, one file each.

mod add;
mod check;
mod cleanup;
mod del;
mod delegate;
mod gc;
mod loopback;
mod status;

use serde_json::{Value, json};

use crate::conf::NetConf;
use crate::spec::{CniError, Code, Command, Environment, Result, SpecVersion};
use crate::store::{Key, Store};

pub use cleanup::cleanup;
pub use gc::{Swept, collect_gone, sweep};

/// Which plugin the program is called as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// The pod network.
    Network,
    /// The plugin that brings up `lo`, which container runtimes expect beside every network.
    Loopback,
}

impl Face {
    /// By the name of the program.
    pub fn of(program: &str) -> Self {
        let name = program.rsplit('/').next().unwrap_or(program);
        if name == "loopback" { Self::Loopback } else { Self::Network }
    }
}

/// Everything that a verb is about.
pub(crate) struct Call<'a> {
    pub(crate) environment: &'a Environment,
    pub(crate) conf: &'a NetConf,
    pub(crate) store: Store,
    pub(crate) key: Key,
}

/// Runs one verb. `Some` is printed on stdout.
pub fn run(face: Face, environment: &Environment, stdin: &[u8]) -> Result<Option<Value>> {
    if environment.command == Command::Version {
        return version(stdin).map(Some);
    }
    if face == Face::Loopback {
        return loopback::run(environment, stdin);
    }
    let mut conf = NetConf::read(stdin, environment.command)?;
    conf.runtime.adopt_environment(&environment.args);
    let key = Key {
        network: conf.name.clone(),
        container_id: environment.container_id.clone(),
        ifname: environment.ifname.clone(),
    };
    let call = Call { environment, conf: &conf, store: Store::new(&conf.data_dir), key };
    match environment.command {
        Command::Add => {
            conf.runtime.validate()?;
            add::add(&call).map(|success| Some(success.to_json(conf.version)))
        }
        Command::Del => del::del(&call).map(|()| None),
        Command::Check => check::check(&call).map(|()| None),
        Command::Gc => gc::gc(&call).map(|()| None),
        Command::Status => status::status(&call).map(|()| None),
        Command::Version => Ok(None),
    }
}

/// VERSION answers in the version of the question, whichever that is.
fn version(stdin: &[u8]) -> Result<Value> {
    let asked: Value = serde_json::from_slice(stdin)
        .map_err(|error| CniError::new(Code::Decode, format!("stdin is not JSON: {error}")))?;
    let version = asked.get("cniVersion").and_then(Value::as_str).unwrap_or(SpecVersion::LATEST.as_str());
    Ok(json!({ "cniVersion": version, "supportedVersions": SpecVersion::ALL.map(SpecVersion::as_str) }))
}

/// The version to write an error in: that of the question if it can be told.
pub fn error_version(stdin: &[u8]) -> String {
    let asked: Option<Value> = serde_json::from_slice(stdin).ok();
    let version = asked.as_ref().and_then(|conf| conf.get("cniVersion")).and_then(Value::as_str);
    version.unwrap_or(SpecVersion::LATEST.as_str()).to_owned()
}

/// Several errors as one; none if there are none.
pub(crate) fn combine(errors: Vec<CniError>) -> Result<()> {
    let mut errors = errors.into_iter();
    let Some(first) = errors.next() else { return Ok(()) };
    let msg = errors.fold(first.msg, |text, error| format!("{text}; {}", error.msg));
    Err(CniError { code: first.code, msg, details: first.details })
}
