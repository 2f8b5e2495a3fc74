//! The chart agrees with the CRDs and with itself, and a release of it fits into the Secret that Helm keeps it in.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};

/// A Secret holds 1 MiB; a release should leave room for users' values and for what is still to come.
const MAX_RELEASE_BYTES: usize = 700_000;

fn chart(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/trysail-workloads").join(path)
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(chart(path)).unwrap()).unwrap()
}

/// The schemas of our CRDs by plural name.
fn schemas() -> BTreeMap<String, Value> {
    let crds = trysail_crds::all().unwrap().into_iter();
    crds.map(|crd| {
        let schema = crd.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema.as_ref().unwrap();
        (crd.spec.names.plural.clone(), serde_json::to_value(schema).unwrap())
    })
    .collect()
}

/// `UPDATE=1` copies.
#[test]
fn the_chart_installs_the_generated_crds() {
    for crd in trysail_crds::all().unwrap() {
        let yaml = trysail_crds::to_yaml(&crd).unwrap();
        let path = chart("files/crds").join(format!("{}.yaml", crd.metadata.name.unwrap()));
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &yaml).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == yaml, "{} is stale: run UPDATE=1 cargo test -p trysail-crds", path.display());
        // The template puts Helm's annotation here.
        assert_eq!(yaml.matches("\nmetadata:\n").count(), 1);
    }
}

/// Every controller that can be chosen has its CRDs and permissions; none is a wildcard, none is on an unknown kind.
#[test]
fn permissions_are_exact() {
    let data = yaml("files/controllers.yaml");
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(chart("values.schema.json")).unwrap()).unwrap();
    let mut choices = schema["properties"]["controllers"]["items"]["enum"].as_array().unwrap().clone();
    choices.extend([json!("common"), json!("spread")]);
    let names: BTreeSet<&str> = choices.iter().filter_map(Value::as_str).collect();
    assert_eq!(names, data.as_object().unwrap().keys().map(String::as_str).collect());
    let plurals = schemas();
    for (controller, entry) in data.as_object().unwrap() {
        for crd in entry["crds"].as_array().into_iter().flatten() {
            assert!(plurals.contains_key(crd.as_str().unwrap()), "{controller} needs the unknown CRD {crd}");
        }
        for rule in entry["rules"].as_array().unwrap() {
            let (group, resource) = (rule["group"].as_str().unwrap(), rule["resource"].as_str().unwrap());
            let (plural, sub) = resource.split_once('/').unwrap_or((resource, ""));
            let known = match group {
                "apps.trysail.dev" | "batch.trysail.dev" => plurals.contains_key(plural),
                "" => ["pods", "events", "persistentvolumeclaims", "nodes"].contains(&plural),
                "apps" => plural == "controllerrevisions",
                _ => false,
            };
            assert!(known && ["", "status", "finalizers"].contains(&sub), "{controller}: {rule}");
            let verbs: Vec<&str> =
                rule["verbs"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            assert!(verbs.is_sorted() && !verbs.contains(&"*"), "{controller}: {rule}");
        }
    }
}

/// Every path that kube-state-metrics reads exists in our schemas, so that no series is silently empty.
#[test]
fn metrics_read_existing_fields() {
    let schemas = schemas();
    for (kind, resources) in yaml("files/kube-state-metrics.yaml").as_object().unwrap() {
        let schema = &schemas[&format!("{kind}s")];
        for metric in resources[0]["metrics"].as_array().unwrap() {
            let each = &metric["each"];
            let source = if each["type"] == "Info" { &each["info"] } else { &each["gauge"] };
            let path: Vec<&str> =
                source["path"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
            if path[0] == "metadata" {
                continue;
            }
            let pointer = path.iter().fold(String::new(), |pointer, name| pointer + "/properties/" + name);
            let field = schema.pointer(&pointer).unwrap_or_else(|| panic!("{kind} has no {path:?}"));
            for name in source["valueFrom"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                assert!(field["items"]["properties"].get(name).is_some(), "{kind}: {path:?} has no {name}");
            }
        }
    }
}

/// A value without a schema would be refused when a user sets it; a schema without a value documents nothing.
#[test]
fn values_and_their_schema_agree() {
    fn compare(values: &Value, schema: &Value, path: &str) {
        let (Some(values), Some(fields)) = (values.as_object(), schema["properties"].as_object()) else {
            return;
        };
        let known: BTreeSet<&String> = fields.keys().filter(|name| *name != "global").collect();
        assert_eq!(values.keys().collect::<BTreeSet<_>>(), known, "below .{path}");
        for (name, value) in values {
            compare(value, &fields[name], &format!("{path}{name}."));
        }
    }
    let schema: Value =
        serde_json::from_str(&fs::read_to_string(chart("values.schema.json")).unwrap()).unwrap();
    compare(&yaml("values.yaml"), &schema, "");
}

/// Packs what Helm packs: the chart's files in base64 and the rendered manifest, in JSON, compressed, in base64 twice
/// (Helm's own and the Secret's). The manifest is stood in for by the templates and CRDs that it is made of.
#[test]
fn a_release_fits_into_its_secret() {
    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    files(&chart(""), &mut found);
    found.sort();
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    for path in &found {
        let content = fs::read(path).unwrap();
        packed.write_all(base64(&content).as_bytes()).unwrap();
        packed.write_all(&content).unwrap();
    }
    let size = packed.finish().unwrap().len() * 16 / 9;
    assert!(size > 10_000, "the chart was not read");
    assert!(size <= MAX_RELEASE_BYTES, "a release has {size} bytes");
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digit = |bits: u32| char::from(ALPHABET[(bits & 63) as usize]);
    let word = |chunk: &[u8]| {
        chunk.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()))
    };
    bytes.chunks(3).map(word).flat_map(|word| [18, 12, 6, 0].map(|shift| digit(word >> shift))).collect()
}

/// `helm template` with these arguments, or nothing when `HELM` names no binary: plain `cargo test` needs no helm.
fn helm_template(args: &[&str]) -> Option<Output> {
    let Some(helm) = env::var_os("HELM") else {
        eprintln!("skipped: set HELM to the path of helm 3 or 4");
        return None;
    };
    let mut command = Command::new(helm);
    // Without a version helm assumes the one that it was built with, or 1.20.
    command
        .args(["template", "trysail-workloads", "--kube-version", "v1.36.0"])
        .arg(chart(""))
        .args(["--namespace", "trysail-system"])
        .args(args);
    Some(command.output().unwrap())
}

/// What a user's cluster gets, reviewed as a diff: the rendered chart without the CRDs. `UPDATE=1` rewrites.
#[test]
fn rendered_as_committed() {
    let digest = "image.digest=sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1";
    let everything: Vec<&str> = [
        "kubeStateMetrics.enabled=true",
        "kubeStateMetrics.namespace=monitoring",
        "kubeStateMetrics.serviceAccount=kube-state-metrics",
        "serviceAccount.name=custom",
        "imagePullSecrets[0].name=registry",
        "nodeSelector.disktype=ssd",
        "tolerations[0].operator=Exists",
        "extraArgs[0]=--skip",
        "extraEnv[0].name=RUST_LOG",
        "extraEnv[0].value=debug",
        "podLabels.team=payments",
        "log.format=json",
        "defaultTopologySpread=false",
        digest,
    ]
    .into_iter()
    .flat_map(|value| ["--set", value])
    .collect();
    let least = [
        "--set",
        "replicas=1,flowSchemas.enabled=false,aggregateRoles=false",
        "--set",
        "controllers={replicaset}",
    ];
    for (name, args) in [("default", [].as_slice()), ("everything", &everything), ("least", &least)] {
        let Some(output) = helm_template(args) else { return };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).unwrap();
        let documents =
            text.split("\n---\n").filter(|document| !document.contains("kind: CustomResourceDefinition"));
        let rendered = documents.map(str::trim).collect::<Vec<_>>().join("\n---\n") + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chart").join(format!("{name}.yaml"));
        if env::var_os("UPDATE").is_some() {
            fs::write(&path, &rendered).unwrap();
        }
        assert!(rendered == fs::read_to_string(&path).unwrap_or_default(), "{} is stale", path.display());
    }
}

/// The CRDs stay when the release goes, and there are only those that the chosen controllers need.
#[test]
fn crds_are_kept_and_follow_the_controllers() {
    for (controllers, wanted) in [
        ("{deployment}", 2),
        ("{replicaset}", 1),
        ("{replicationcontroller,deployment}", 3),
        ("{job,cronjob,ttl-after-finished}", 2),
    ] {
        let Some(output) = helm_template(&["--set", &format!("controllers={controllers}")]) else { return };
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("kind: CustomResourceDefinition\n").count(), wanted, "{controllers}");
        assert_eq!(text.matches("\n  helm.sh/resource-policy: keep\n").count(), wanted, "{controllers}");
    }
}

/// Values that cannot work are refused with what to do instead.
#[test]
fn impossible_values_are_refused() {
    for (value, wanted) in [
        ("api=native", "Run trysail-manager as a static pod on the control plane"),
        ("api=both", "Run trysail-manager as a static pod on the control plane"),
        ("api=crds", "'crd', 'native', 'both'"),
        ("controllers={deploymnt}", "'deployment', 'replicaset', 'replicationcontroller'"),
        ("replica=3", "'replica' not allowed"),
    ] {
        let Some(output) = helm_template(&["--set", value]) else { return };
        let message = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && message.contains(wanted), "{value}: {message}");
    }
}

/// What the chart grants is what the manager says it uses, whichever controllers are chosen. Runs when `MANAGER` names
/// the binary.
#[test]
fn the_manager_uses_what_the_chart_grants() {
    let Some(manager) = env::var_os("MANAGER") else {
        eprintln!("skipped: set MANAGER to the path of trysail-manager");
        return;
    };
    let data = yaml("files/controllers.yaml");
    for controllers in [
        ["deployment"].as_slice(),
        &["replicaset"],
        &["replicationcontroller"],
        &["statefulset"],
        &["daemonset"],
        &["job"],
        &["cronjob"],
        &["ttl-after-finished"],
        &[
            "deployment",
            "replicaset",
            "replicationcontroller",
            "statefulset",
            "daemonset",
            "job",
            "cronjob",
            "ttl-after-finished",
        ],
    ] {
        let mut granted: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let spread = controllers.iter().any(|controller| data[controller]["spreads"] == true);
        let more = if spread { ["common", "spread"].as_slice() } else { &["common"] };
        for controller in controllers.iter().chain(more) {
            for rule in data[controller]["rules"].as_array().unwrap() {
                let verbs =
                    rule["verbs"].as_array().unwrap().iter().map(|verb| verb.as_str().unwrap().to_owned());
                granted.entry(format!("{} {}", rule["group"], rule["resource"])).or_default().extend(verbs);
            }
        }
        let chosen = controllers.join(",");
        let args = [
            "rbac",
            "--api=crd",
            "--controllers",
            &chosen,
            "--service-account=trysail-system/trysail-workloads",
        ];
        let output = Command::new(&manager).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
        let items = printed["items"].as_array().unwrap();
        let role = items.iter().find(|item| item["kind"] == "ClusterRole").unwrap();
        let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for rule in role["rules"].as_array().unwrap() {
            let verbs =
                rule["verbs"].as_array().unwrap().iter().map(|verb| verb.as_str().unwrap().to_owned());
            used.entry(format!("{} {}", rule["apiGroups"][0], rule["resources"][0]))
                .or_default()
                .extend(verbs);
        }
        assert_eq!(granted, used, "{chosen}: granted by the chart, used by the manager");
    }
}
