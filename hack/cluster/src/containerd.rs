//! Configuration of containerd, and what `ctr` does for us.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use crate::config::PAUSE_IMAGE;
use crate::kubelet::Machine;
use crate::layout::inside;
use crate::node_spec::{ComponentSpec, NodeFile};
use crate::process::{command, run};

const CONFIG: &str = "/etc/containerd/config.toml";

/// containerd itself; it waits for nothing.
pub(crate) fn component() -> ComponentSpec {
    let argv = ["containerd", "--config", CONFIG].map(str::to_owned).to_vec();
    ComponentSpec { name: "containerd".to_owned(), argv, after: Vec::new() }
}

/// Its configuration file.
pub(crate) fn files(machine: Machine) -> Vec<NodeFile> {
    vec![NodeFile::new(CONFIG, config(machine))]
}

/// `test-handler` is a second name of the same runtime, for tests of RuntimeClass.
fn config(machine: Machine) -> String {
    let restrict = !machine.may_raise_limits;
    let cri = r#"plugins."io.containerd.grpc.v1.cri""#;
    let mut text = format!(
        "\
version = 2
[{cri}]
  restrict_oom_score_adj = {restrict}
  sandbox_image = \"{PAUSE_IMAGE}\"
[{cri}.cni]
  bin_dir = \"{bin}\"
  conf_dir = \"{conf}\"
",
        bin = inside::CNI_BIN,
        conf = inside::CNI_CONF,
    );
    for name in ["runc", "test-handler"] {
        let _ = write!(
            text,
            "\
[{cri}.containerd.runtimes.{name}]
  runtime_type = \"io.containerd.runc.v2\"
[{cri}.containerd.runtimes.{name}.options]
  SystemdCgroup = false
"
        );
    }
    text
}

/// Gives a node an image. Layers are unpacked when a container first needs them.
pub(crate) fn import(init: i32, node: &str, archive: &Path) -> Result<()> {
    let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    let mut ctr = command("nsenter");
    ctr.args(["-t", &init.to_string(), "-m", "--", "ctr", "-n", "k8s.io", "images", "import"]);
    ctr.args(["--no-unpack", "-"]).stdin(file);
    run(&mut ctr).map(drop).with_context(|| format!("cannot import {} into node {node}", archive.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration() {
        insta::assert_snapshot!(config(Machine { may_raise_limits: false }));
    }
}
