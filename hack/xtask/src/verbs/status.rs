//! `cargo xtask cluster status`: nodes and components at a glance.

use anyhow::Result;
use trysail_cluster::{Cluster, Node};

/// Prints the cluster's state. Fails when there is none.
pub(crate) fn run(name: &str) -> Result<()> {
    let cluster = Cluster::open(name)?;
    println!("cluster     {name}");
    println!("server      {}", cluster.server());
    println!("kubeconfig  {}", cluster.kubeconfig().display());
    println!("logs        {}", cluster.layout().dir().join("logs").display());
    println!();
    println!("{:<6} {:<16} {:<26} {:>8} {:>9}  LAST END", "NODE", "ADDRESS", "COMPONENT", "PID", "RESTARTS");
    for node in cluster.nodes() {
        print_node(&node);
    }
    println!();
    match cluster.run_kubectl(&["get", "nodes", "--request-timeout=5s"]) {
        Ok(text) => print!("{text}"),
        Err(error) => println!("the API server does not answer: {error:#}"),
    }
    Ok(())
}

fn print_node(node: &Node) {
    let address = node.address().to_string();
    let init = node.init().map_or_else(|_| "down".to_owned(), |init| init.pid.to_string());
    println!("{:<6} {address:<16} {:<26} {init:>8}", node.name(), "(node)");
    for component in node.components() {
        let report = node.component(&component).unwrap_or_default();
        let pid = node.component_pid(&component).map_or_else(|_| "down".to_owned(), |pid| pid.to_string());
        let end = report.last_end.unwrap_or_default();
        println!("{:<6} {:<16} {component:<26} {pid:>8} {:>9}  {end}", "", "", report.restarts);
    }
}
