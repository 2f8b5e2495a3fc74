//! Addresses from another plugin: executed as the specification says, with our environment and configuration.
//!
//! This is the only place that executes anything, and only for configurations that name a foreign `ipam.type`.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::spec::{CniError, Code, Result, Success};
use crate::verbs::Call;

pub(super) fn add(call: &Call<'_>, plugin: &str) -> Result<Success> {
    let output = execute(call, plugin, "ADD")?;
    let value: Value = serde_json::from_slice(&output).map_err(|error| {
        CniError::new(Code::Delegate, format!("{plugin}: its result is not JSON: {error}"))
    })?;
    Success::from_json(&value)
}

pub(super) fn del(call: &Call<'_>, plugin: &str) -> Result<()> {
    execute(call, plugin, "DEL").map(drop)
}

pub(super) fn check(call: &Call<'_>, plugin: &str) -> Result<()> {
    execute(call, plugin, "CHECK").map(drop)
}

pub(super) fn status(call: &Call<'_>, plugin: &str) -> Result<()> {
    execute(call, plugin, "STATUS").map(drop)
}

pub(super) fn gc(call: &Call<'_>, plugin: &str) -> Result<()> {
    execute(call, plugin, "GC").map(drop)
}

fn execute(call: &Call<'_>, plugin: &str, command: &str) -> Result<Vec<u8>> {
    let found =
        call.environment.path.iter().map(|directory| directory.join(plugin)).find(|path| path.is_file());
    let path = found.filter(|_| !plugin.contains('/')).ok_or_else(|| {
        CniError::new(Code::InvalidNetworkConfig, format!("ipam.type {plugin:?} is not in CNI_PATH"))
            .details("install that plugin, or leave ipam.type out to let this one give out addresses")
    })?;
    let failed =
        |error: std::io::Error| CniError::new(Code::Delegate, format!("failed to run {plugin}: {error}"));
    let mut child = Command::new(&path)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", &call.key.container_id)
        .env("CNI_IFNAME", &call.key.ifname)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(call.conf.raw.to_string().as_bytes()).map_err(failed)?;
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() { Ok(output.stdout) } else { Err(refusal(plugin, &output)) }
}

/// Its own words where it has some.
fn refusal(plugin: &str, output: &Output) -> CniError {
    let object: Option<Value> = serde_json::from_slice(&output.stdout).ok();
    let said = object.as_ref().and_then(|value| value.get("msg")).and_then(Value::as_str);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let text = said.unwrap_or_else(|| stderr.trim());
    CniError::new(Code::Delegate, format!("{plugin} failed ({}): {text}", output.status))
}
