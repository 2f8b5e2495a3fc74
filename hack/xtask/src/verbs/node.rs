//! Hidden verbs: the processes that make and run a cluster's nodes. `cluster up` starts them; nobody else should.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use trysail_cluster::{node_init, node_launch};

/// Arguments of `node-launch`.
#[derive(Args, Debug)]
pub(crate) struct LaunchArgs {
    spec: PathBuf,
    init_log: PathBuf,
}

/// Arguments of `node-init`.
#[derive(Args, Debug)]
pub(crate) struct InitArgs {
    spec: PathBuf,
}

/// Arguments of `node-switch`.
#[derive(Args, Debug)]
pub(crate) struct SwitchArgs {
    subnet: Ipv4Addr,
    pid_file: PathBuf,
}

pub(crate) fn launch(args: &LaunchArgs) -> Result<()> {
    node_launch::launch_node(&args.spec, &args.init_log)
}

pub(crate) fn init(args: &InitArgs) -> Result<()> {
    node_init::run(&args.spec)
}

pub(crate) fn switch(args: &SwitchArgs) -> Result<()> {
    node_launch::hold_switch(args.subnet, &args.pid_file)
}
