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
    thread,
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

    /// Succeeds, or says why not.
    fn try_run(&self, args: &[&str]) -> Result<(), String> {
        let output = self.run(&[&["--namespace", &self.namespace], args].concat());
        if output.status.success() {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    fn apply(&self, file: &Path, how: &[&str]) -> Result<(), String> {
        self.try_run(&[&["apply", "--filename", file.to_str().unwrap()], how].concat())
    }

    /// Replaces the status of the object in `file`.
    fn write_status(&self, file: &Path, status: &Value, how: &[&str]) -> Result<(), String> {
        let patch = json!([{"op": "add", "path": "/status", "value": status}]).to_string();
        let fixed = ["patch", "--subresource=status", "--type=json", "--patch", &patch];
        self.try_run(&[&fixed, ["--filename", file.to_str().unwrap()].as_slice(), how].concat())
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
        // A definition that is so new that it has no conditions at all is an error to `wait`.
        let wait = ["wait", "--for=condition=Established", "--timeout=30s", "crd", &name];
        if !(0..20).any(|_| kubectl.run(&wait).status.success()) {
            kubectl.succeed(&wait);
        }
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

type Judge = fn(&Kubectl, &Path, &str, &str) -> Vec<String>;

/// What `judge` finds wrong with the manifests of a folder. Several are judged at a time, as most of it is waiting.
fn each(kubectl: &Kubectl, folder: &str, judge: Judge) -> Vec<String> {
    let files = tempfile::tempdir().unwrap();
    let manifests: Vec<(String, String)> = corpus(folder).into_iter().collect();
    thread::scope(|scope| {
        let judge_all = |part: &[(String, String)]| -> Vec<String> {
            part.iter().flat_map(|(name, text)| judge(kubectl, files.path(), name, text)).collect()
        };
        let parts: Vec<_> = manifests
            .chunks(manifests.len().div_ceil(4))
            .map(|part| scope.spawn(move || judge_all(part)))
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

/// Whether the second line of a manifest names this difference to the native kinds.
fn differs(text: &str, difference: &str) -> bool {
    text.lines().nth(1).unwrap().strip_prefix("# natively ").is_some_and(|line| line.starts_with(difference))
}

fn refused(kubectl: &Kubectl, folder: &Path, name: &str, text: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let wanted = wanted(text);
    let documents = write(folder, name, text);
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
    let accepted = kubectl.apply(native, &["--dry-run=server"]).is_ok();
    if accepted != differs(text, "accepted: ") {
        failures.push(format!("{name}: accepted natively is {accepted}"));
    }
    failures
}

/// Whether the native controllers leave the statuses of this manifest alone.
fn is_unmanaged(text: &str) -> bool {
    text.contains("\n  managedBy: ")
}

/// The faces in which a step can be taken: the native one if nobody there writes the status as well.
fn faces([native, ours]: &[PathBuf; 2], natively: bool) -> Vec<(&'static str, &Path)> {
    let faces = [("ours", ours.as_path()), ("native", native.as_path())];
    faces.into_iter().take(1 + usize::from(natively)).collect()
}

fn refused_status(kubectl: &Kubectl, folder: &Path, name: &str, text: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let [first, second] = documents(text).try_into().unwrap();
    for (face, file) in faces(&write(folder, name, text)[0], is_unmanaged(text)) {
        kubectl.apply(file, &[]).unwrap();
        if let Err(error) = kubectl.write_status(file, &first["status"], &[]) {
            failures.push(format!("{name}, {face}: {error}"));
            continue;
        }
        match kubectl.write_status(file, &second["status"], &["--dry-run=server"]) {
            Ok(()) => failures.push(format!("{name} was accepted, {face}")),
            Err(error) if face == "native" || error.contains(wanted(text)) => {}
            Err(error) => failures.push(format!("{name}: wanted {}, got {error}", wanted(text))),
        }
    }
    failures
}

fn changes(kubectl: &Kubectl, folder: &Path, name: &str, text: &str) -> Vec<String> {
    let mut failures = Vec::new();
    let files = write(folder, name, text);
    let last = files.len() - 1;
    for (step, (files, document)) in files.iter().zip(documents(text)).enumerate() {
        let status = document.get("status");
        for (face, file) in faces(files, status.is_none() || is_unmanaged(text)) {
            let applied = kubectl.apply(file, &[]);
            let done = match status {
                Some(status) => applied.and_then(|()| kubectl.write_status(file, status, &[])),
                None => applied,
            };
            let is_refused = face == "native" && step == last && differs(text, "refused: ");
            if done.is_ok() == is_refused {
                failures.push(format!("{name}, {face}, {}: {done:?}", file.display()));
            }
        }
    }
    failures
}

/// One test, because its parts use one namespace.
#[test]
fn the_corpora_on_a_real_api_server() {
    let Some(kubectl) = prepare() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut failures = Vec::new();
    accepted(&kubectl, &folder.path().join("accepted"), &mut failures);
    let judges: [(&str, Judge); 3] =
        [("refused", refused), ("refused-status", refused_status), ("changes", changes)];
    failures.extend(judges.into_iter().flat_map(|(folder, judge)| each(&kubectl, folder, judge)));
    kubectl.run(&["delete", "namespace", &kubectl.namespace, "--wait=false"]);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
