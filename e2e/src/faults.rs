//! Hands to break things with: signals to the processes of a pod, found by the pod's uid in their cgroup, so
//! that no process of anybody else is ever hit.

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// Processes of the pod's containers (its sandbox excepted), as this machine's pids.
pub fn processes_of_pod(pod_uid: &str, program: &str) -> Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").context("failed to read /proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process may end while it is looked at: then it is not what we look for.
        let Ok(cgroups) = std::fs::read_to_string(entry.path().join("cgroup")) else { continue };
        let Ok(comm) = std::fs::read_to_string(entry.path().join("comm")) else { continue };
        if cgroups.contains(&format!("pod{pod_uid}")) && program.starts_with(comm.trim()) {
            found.push(Pid::from_raw(pid));
        }
    }
    Ok(found)
}

/// Sends a signal to every process of `program` in that pod; there must be one.
pub fn signal_pod(pod_uid: &str, program: &str, signal: Signal) -> Result<Vec<Pid>> {
    let pids = processes_of_pod(pod_uid, program)?;
    if pids.is_empty() {
        bail!("pod {pod_uid} has no process {program} on this machine");
    }
    for pid in &pids {
        kill(*pid, signal).with_context(|| format!("failed to send {signal} to {pid}"))?;
    }
    Ok(pids)
}

/// Resets every TCP connection that the program in that pod has to an API server. Says how many it had.
pub fn reset_connections(pod_uid: &str, program: &str) -> Result<usize> {
    let pids = processes_of_pod(pod_uid, program)?;
    let pid =
        pids.first().with_context(|| format!("pod {pod_uid} has no process {program} on this machine"))?;
    let mut ss = std::process::Command::new("nsenter");
    ss.args(["--target", &pid.to_string(), "--net", "ss", "--no-header", "--tcp", "--kill", "--processes"]);
    // The port as the process sees it: the Service's, or the server's own.
    ss.args(["state", "established", "( dport = :443 or dport = :6443 )"]);
    let printed = crate::program::run(&mut ss)?;
    Ok(printed.lines().count())
}
