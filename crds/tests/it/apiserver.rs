//! The same corpora against a real API server, in both faces: what the native kinds accept ours accept, what ours
//! refuse the native kinds refuse, and the offline tests word messages as the server does.
//!
//! Runs when `KUBECTL` names a binary whose cluster (`KUBECONFIG`) may be written to: CRDs that are missing are
//! created and stay; everything else is a dry run or lives in a namespace that is removed.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use crate::manifests::{corpus, documents};

struct Kubectl {
    binary: OsString,
    /// Of this run alone: an earlier one may still be terminating.
    namespace: String,
}

impl Kubectl {
    fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.binary).args(args).output().unwrap()
    }

    fn succeed(&self, args: &[&str]) {
        let output = self.run(args);
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn apply(&self, file: &Path, how: &[&str]) -> Result<(), String> {
        let file = file.to_str().unwrap();
        let output =
            self.run(&[&["apply", "--namespace", &self.namespace, "--filename", file], how].concat());
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }
}

/// Creates what is missing, and waits until the kinds are served.
fn prepare() -> Option<Kubectl> {
    let Some(binary) = env::var_os("KUBECTL") else {
        eprintln!("skipped: set KUBECTL to the path of kubectl, and KUBECONFIG to a cluster");
        return None;
    };
    let kubectl = Kubectl { binary, namespace: format!("trysail-corpus-{}", std::process::id()) };
    for crd in trysail_crds::all().unwrap() {
        let name = crd.metadata.name.unwrap();
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("generated").join(format!("{name}.yaml"));
        // Fails when another test, or the chart, was first; then the wait tells.
        kubectl.run(&["create", "--filename", file.to_str().unwrap()]);
        kubectl.succeed(&["wait", "--for=condition=Established", "--timeout=30s", "crd", &name]);
    }
    kubectl.succeed(&["create", "namespace", &kubectl.namespace]);
    Some(kubectl)
}

/// Writes the documents of a manifest to files below `folder`: as they are for the native kinds, and for ours.
fn write(folder: &Path, name: &str, text: &str) -> Vec<[PathBuf; 2]> {
    let write = |(index, ours): (usize, Value)| {
        let mut native = ours.clone();
        native["apiVersion"] =
            if native["kind"] == "ReplicationController" { "v1".into() } else { "apps/v1".into() };
        [("native", native), ("ours", ours)].map(|(face, object)| {
            let folder = folder.join(face);
            fs::create_dir_all(&folder).unwrap();
            let path = folder.join(format!("{name}.{index}.json"));
            fs::write(&path, object.to_string()).unwrap();
            path
        })
    };
    documents(text).into_iter().enumerate().map(write).collect()
}

/// Applies each folder at once: kubectl goes on after an error and names the object.
fn accepted(kubectl: &Kubectl, folder: &Path, failures: &mut Vec<String>) {
    for (name, text) in corpus("manifests") {
        write(folder, &name, &text);
    }
    for (face, how) in
        [("native", "--server-side=false"), ("ours", "--server-side=false"), ("ours", "--server-side")]
    {
        if let Err(error) = kubectl.apply(&folder.join(face), &["--dry-run=server", how]) {
            failures.push(format!("refused, {face}, {how}: {error}"));
        }
    }
}

fn refused(kubectl: &Kubectl, folder: &Path, failures: &mut Vec<String>) {
    for (name, text) in corpus("refused") {
        let wanted = text.lines().next().unwrap().strip_prefix("# refused: ").unwrap();
        let documents = write(folder, &name, &text);
        let [native, ours] = documents.last().unwrap();
        // An update is refused because of what is stored, so that must be there for real.
        if let [first, _] = documents.as_slice() {
            for file in first {
                kubectl.apply(file, &[]).unwrap();
            }
        }
        match kubectl.apply(ours, &["--dry-run=server"]) {
            Ok(()) => failures.push(format!("{name} was accepted")),
            Err(error) if error.contains(wanted) => {}
            Err(error) => failures.push(format!("{name}: wanted {wanted}, got {error}")),
        }
        if kubectl.apply(native, &["--dry-run=server"]).is_ok() {
            failures.push(format!("{name} is accepted natively"));
        }
    }
}

/// One test, because both halves use one namespace.
#[test]
fn the_corpora_on_a_real_api_server() {
    let Some(kubectl) = prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    accepted(&kubectl, &folder.path().join("accepted"), &mut failures);
    refused(&kubectl, &folder.path().join("refused"), &mut failures);
    kubectl.run(&["delete", "namespace", &kubectl.namespace, "--wait=false"]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
