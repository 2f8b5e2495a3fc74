//! What becomes of each pod of a node that is drained. Kubernetes' own drain compares kind *and* group, so that it
//! would wait for ever for the pods of our DaemonSets, which come straight back; this one knows both.

use serde_json::Value;

/// What the user allows beyond evicting what comes back elsewhere.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowed {
    /// Pods that nobody will make again.
    pub(super) unmanaged: bool,
    /// Pods whose data are on the node.
    pub(super) local_data: bool,
}

/// What becomes of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// It is evicted, as disruption budgets allow.
    Evict,
    /// It is on its way out already.
    Wait,
    /// It stays: a daemon of the node.
    Daemon,
    /// It stays: the kubelet's own.
    Static,
    /// Its loss is for the user to allow: the flag that does.
    Refuse(&'static str),
}

/// The groups whose DaemonSets put their pods back on a cordoned node.
const DAEMON_SET_GROUPS: [&str; 2] = ["apps", "apps.trysail.dev"];

pub(super) fn fate(pod: &Value, allowed: Allowed) -> Fate {
    let metadata = &pod["metadata"];
    if !metadata["annotations"]["kubernetes.io/config.mirror"].is_null() {
        return Fate::Static;
    }
    if !metadata["deletionTimestamp"].is_null() {
        return Fate::Wait;
    }
    let is_finished = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
    let owners = metadata["ownerReferences"].as_array().into_iter().flatten();
    let controller = owners.into_iter().find(|owner| owner["controller"] == true);
    if !is_finished && controller.is_some_and(is_daemon_set) {
        return Fate::Daemon;
    }
    if is_finished {
        return Fate::Evict;
    }
    if controller.is_none() && !allowed.unmanaged {
        return Fate::Refuse("--force");
    }
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    if !allowed.local_data && volumes.into_iter().any(|volume| !volume["emptyDir"].is_null()) {
        return Fate::Refuse("--delete-emptydir-data");
    }
    Fate::Evict
}

fn is_daemon_set(owner: &Value) -> bool {
    let group =
        owner["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    owner["kind"] == "DaemonSet" && group.is_some_and(|group| DAEMON_SET_GROUPS.contains(&group))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(owner: Option<(&str, &str)>, more: &[(&str, Value)]) -> Value {
        let owners =
            owner.map(|(version, kind)| json!([{"apiVersion": version, "kind": kind, "controller": true}]));
        let mut pod =
            json!({"metadata": {"name": "p", "ownerReferences": owners}, "status": {"phase": "Running"}});
        for (path, value) in more {
            *crate::edit::at(&mut pod, &path.split('/').collect::<Vec<_>>()) = value.clone();
        }
        pod
    }

    #[test]
    fn each_pod_has_its_fate() {
        const SET: Option<(&str, &str)> = Some(("apps.trysail.dev/v1", "ReplicaSet"));
        const DAEMON: Option<(&str, &str)> = Some(("apps.trysail.dev/v1", "DaemonSet"));
        let scratch = || ("spec/volumes", json!([{"name": "v", "emptyDir": {}}]));
        let ended = || ("status/phase", json!("Failed"));
        let cases = [
            (pod(SET, &[]), Fate::Evict),
            (pod(DAEMON, &[]), Fate::Daemon),
            (pod(Some(("apps/v1", "DaemonSet")), &[scratch()]), Fate::Daemon),
            (pod(Some(("example.com/v1", "DaemonSet")), &[]), Fate::Evict),
            (pod(DAEMON, &[ended()]), Fate::Evict),
            (pod(None, &[]), Fate::Refuse("--force")),
            (pod(None, &[ended()]), Fate::Evict),
            (pod(SET, &[scratch()]), Fate::Refuse("--delete-emptydir-data")),
            (pod(SET, &[scratch(), ended()]), Fate::Evict),
            (pod(SET, &[("metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z"))]), Fate::Wait),
            (
                pod(None, &[("metadata/annotations", json!({"kubernetes.io/config.mirror": "x"}))]),
                Fate::Static,
            ),
        ];
        for (pod, expected) in cases {
            assert_eq!(fate(&pod, Allowed::default()), expected, "{pod}");
        }
        let all = Allowed { unmanaged: true, local_data: true };
        assert_eq!(fate(&pod(None, &[scratch()]), all), Fate::Evict);
    }
}
