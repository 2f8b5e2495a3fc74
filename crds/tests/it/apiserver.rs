//! The same corpora against a real API server, in both faces: what the native kinds accept ours accept, what ours
//! refuse the native kinds refuse unless a file says otherwise, and the offline tests word messages as the server does.
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

use serde_json::{Value, json};

use crate::manifests::{corpus, documents, wanted};

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

impl Kubectl {
    /// Replaces the status `old` of the object in `file`.
    fn write_status(&self, file: &Path, old: &Value, status: &Value, how: &[&str]) -> Result<(), String> {
        let mut status = status.clone();
        for gone in old.as_object().into_iter().flat_map(serde_json::Map::keys) {
            if status.get(gone).is_none() {
                status[gone] = Value::Null;
            }
        }
        let patch = json!({"status": status}).to_string();
        let fixed = [
            "patch",
            "--namespace",
            &self.namespace,
            "--subresource=status",
            "--type=merge",
            "--patch",
            &patch,
        ];
        let file = ["--filename", file.to_str().unwrap()];
        let output = self.run(&[&fixed, file.as_slice(), how].concat());
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
        native["apiVersion"] = match native["kind"].as_str().unwrap() {
            "ReplicationController" => "v1".into(),
            "Job" | "CronJob" => "batch/v1".into(),
            _ => "apps/v1".into(),
        };
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
        let wanted = wanted(&text);
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
        let excused = text.lines().nth(1).unwrap().starts_with("# natively accepted: ");
        if kubectl.apply(native, &["--dry-run=server"]).is_ok() != excused {
            failures.push(format!("{name}: accepted natively is {}", !excused));
        }
    }
}

/// Whether the native controllers leave the statuses of this manifest alone.
fn is_unmanaged(text: &str) -> bool {
    text.contains("\n  managedBy: ")
}

/// The files of a step: in our face, and in the native one if nobody there writes the status as well.
fn faces<'a>([native, ours]: &'a [PathBuf; 2], text: &str) -> Vec<(&'static str, &'a Path)> {
    let faces = [("ours", ours.as_path()), ("native", native.as_path())];
    faces.into_iter().take(if is_unmanaged(text) { 2 } else { 1 }).collect()
}

fn refused_status(kubectl: &Kubectl, folder: &Path, failures: &mut Vec<String>) {
    for (name, text) in corpus("refused-status") {
        let [first, second] = documents(&text).try_into().unwrap();
        for (face, file) in faces(&write(folder, &name, &text)[0], &text) {
            kubectl.apply(file, &[]).unwrap();
            if let Err(error) = kubectl.write_status(file, &Value::Null, &first["status"], &[]) {
                failures.push(format!("{name}, {face}: {error}"));
                continue;
            }
            match kubectl.write_status(file, &first["status"], &second["status"], &["--dry-run=server"]) {
                Ok(()) => failures.push(format!("{name} was accepted, {face}")),
                Err(error) if face == "native" || error.contains(wanted(&text)) => {}
                Err(error) => failures.push(format!("{name}: wanted {}, got {error}", wanted(&text))),
            }
        }
    }
}

fn changes(kubectl: &Kubectl, folder: &Path, failures: &mut Vec<String>) {
    for (name, text) in corpus("changes") {
        let mut old = Value::Null;
        for (files, document) in write(folder, &name, &text).iter().zip(documents(&text)) {
            let has_status = document.get("status").is_some();
            let natively = !has_status || is_unmanaged(&text);
            for (face, file) in
                [("ours", &files[1]), ("native", &files[0])].into_iter().take(1 + usize::from(natively))
            {
                let mut done = kubectl.apply(file, &[]);
                if has_status {
                    done = done.and_then(|()| kubectl.write_status(file, &old, &document["status"], &[]));
                }
                if let Err(error) = done {
                    failures.push(format!("{name}, {face}, {}: {error}", file.display()));
                }
            }
            old = document["status"].clone();
        }
    }
}

/// One test, because its parts use one namespace.
#[test]
fn the_corpora_on_a_real_api_server() {
    let Some(kubectl) = prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    accepted(&kubectl, &folder.path().join("accepted"), &mut failures);
    refused(&kubectl, &folder.path().join("refused"), &mut failures);
    refused_status(&kubectl, &folder.path().join("refused-status"), &mut failures);
    changes(&kubectl, &folder.path().join("changes"), &mut failures);
    kubectl.run(&["delete", "namespace", &kubectl.namespace, "--wait=false"]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
