//! Examples: what is planned in which situation.

use insta::assert_snapshot;
use jiff::SignedDuration;
use serde_json::json;
use trysail_core::{Face, plan::Refusal};

use crate::{
    fixture::now,
    statefulset::fixture::{claim_templates, template, world},
};

#[test]
fn the_first_pod_comes_with_its_revision_and_claims() {
    let mut start = world(json!({"replicas": 2, "volumeClaimTemplates": claim_templates(&["data", "log"])}));
    start.status = json!({});
    assert_snapshot!(start.revisions(&[]).plan().to_string(), @r#"
    1. create ControllerRevision shop/db-649dcd4bf5 (a template that was not recorded yet)
    2. create PersistentVolumeClaim shop/data-db-0 (db-0 needs it)
    2. create PersistentVolumeClaim shop/log-db-0 (db-0 needs it)
    3. create Pod shop/db-0 (next in order)
    waiting on 0 of 2 pods created
    look again at 2026-01-01T00:00:11Z
    "#);
}

#[test]
fn a_pod_has_an_identity() {
    let mut start = world(json!({"replicas": 8, "ordinals": {"start": 7},
        "volumeClaimTemplates": claim_templates(&["data"])}));
    start.spec["template"] = json!({"metadata": {"labels": {"app": "db"}, "annotations": {"a": "b"}},
        "spec": {"containers": [], "hostname": "mine", "future": {"x": 1},
            "volumes": [{"name": "data", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}]}});
    let plan = start.claims(&["data-db-7"]).plan();
    let create = plan.actions().find(|action| action.reason == "CreatePod").unwrap();
    let trysail_core::plan::Verb::Create { body, .. } = &create.verb else { unreachable!() };
    assert_snapshot!(serde_json::to_string_pretty(&body.to_value()).unwrap(), @r#"
    {
      "apiVersion": "v1",
      "kind": "Pod",
      "metadata": {
        "annotations": {
          "a": "b"
        },
        "labels": {
          "app": "db",
          "apps.kubernetes.io/pod-index": "7",
          "controller-revision-hash": "db-8d8b74dc7",
          "statefulset.kubernetes.io/pod-name": "db-7"
        },
        "name": "db-7",
        "namespace": "shop",
        "ownerReferences": [
          {
            "apiVersion": "apps/v1",
            "blockOwnerDeletion": true,
            "controller": true,
            "kind": "StatefulSet",
            "name": "db",
            "uid": "uid-db"
          }
        ]
      },
      "spec": {
        "containers": [],
        "future": {
          "x": 1
        },
        "hostname": "db-7",
        "subdomain": "peers",
        "volumes": [
          {
            "name": "data",
            "persistentVolumeClaim": {
              "claimName": "data-db-7"
            }
          },
          {
            "emptyDir": {},
            "name": "tmp"
          }
        ]
      }
    }
    "#);
}

/// In upstream's words of 1.36, with a capital.
#[test]
fn events_are_worded_as_people_know_them() {
    let spec = json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data"])});
    let told = |pods: &[&str]| -> Vec<String> {
        let plan = world(spec.clone()).pods(pods).plan();
        let notes = plan.actions().flat_map(|action| [&action.on_success, &action.on_failure]).flatten();
        notes.map(|note| format!("{}: {}", note.reason, note.message)).collect()
    };
    assert_eq!(
        told(&[]),
        [
            "SuccessfulCreate: Create Claim data-db-0 Pod db-0 in StatefulSet db success",
            "FailedCreate: Create Claim data-db-0 for Pod db-0 in StatefulSet db failed error",
            "SuccessfulCreate: Create Pod db-0 in StatefulSet db successful",
            "FailedCreate: Create Pod db-0 in StatefulSet db failed error",
        ]
    );
    assert_eq!(
        told(&["0 ready", "1 ready"])[0],
        "SuccessfulDelete: Delete Pod db-1 in StatefulSet db successful"
    );
    assert_eq!(told(&["0 ready bare"])[0], "SuccessfulUpdate: Update Pod db-0 in StatefulSet db successful");
}

#[test]
fn a_claim_is_made_from_its_template() {
    let start = world(json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data"]),
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete"}}));
    let plan = start.plan();
    let create = plan.actions().find(|action| action.reason == "CreateClaim").unwrap();
    let trysail_core::plan::Verb::Create { body, .. } = &create.verb else { unreachable!() };
    assert_snapshot!(body.to_value().to_string(), @r#"
    {"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{"labels":{"app":"db","tier":"disk"},"name":"data-db-0","namespace":"shop","ownerReferences":[{"apiVersion":"apps/v1","blockOwnerDeletion":true,"controller":true,"kind":"StatefulSet","name":"db","uid":"uid-db"}]},"spec":{"resources":{"requests":{"storage":"1Gi"}}}}
    "#);
}

/// One after the other: (replicas, pods, what is done). Nothing and one are sizes too.
#[test]
fn ordered_pods_come_and_go_one_by_one() {
    for (replicas, pods, moves) in [
        (0, vec![], ""),
        (1, vec![], "+db-0"),
        (3, vec![], "+db-0"),
        (3, vec!["0 pending"], ""),
        (3, vec!["0 starting"], ""),
        (3, vec!["0 ready"], "+db-1"),
        (3, vec!["0 ready going"], ""),
        (3, vec!["0 sick", "2 ready"], ""),
        (3, vec!["0 ready", "2 ready"], "+db-1"),
        (3, vec!["1 ready", "2 ready"], "+db-0"),
        (3, vec!["0 failed"], "-db-0"),
        (3, vec!["0 succeeded"], "-db-0"),
        (3, vec!["0 failed=Evicted going"], ""),
        (1, vec!["0 ready", "1 ready", "2 ready"], "-db-2"),
        (1, vec!["0 ready", "1 ready", "2 ready going"], ""),
        (1, vec!["0 ready", "1 ready", "2 failed going"], ""),
        (1, vec!["0 ready", "1 ready", "2 sick"], "-db-2"),
        (1, vec!["0 ready", "1 sick", "2 sick"], ""),
        (1, vec!["0 ready", "1 sick", "2 ready"], "-db-2"),
        (1, vec!["0 ready", "1 sick", "2 failed"], "-db-2"),
        (1, vec!["0 sick", "1 ready"], ""),
        (0, vec!["0 sick", "1 sick"], ""),
        (0, vec!["0 sick", "1 ready"], "-db-1"),
        (0, vec!["0 sick"], "-db-0"),
        (0, vec!["0 ready"], "-db-0"),
    ] {
        assert_eq!(world(json!({"replicas": replicas})).pods(&pods).moves(), moves, "{replicas} {pods:?}");
    }
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    for (replicas, pods, moves) in [
        (0, vec![], ""),
        (1, vec![], "+db-0"),
        (3, vec!["1 sick"], "+db-0 +db-2"),
        (3, vec!["0 failed", "1 going"], "-db-0 +db-2"),
        (1, vec!["0 sick", "1 sick", "2 ready", "3 going"], "-db-2 -db-1"),
        (0, vec!["0 sick", "1 ready"], "-db-1 -db-0"),
    ] {
        let spec = json!({"replicas": replicas, "podManagementPolicy": "Parallel"});
        assert_eq!(world(spec).pods(&pods).moves(), moves, "{replicas} {pods:?}");
    }
    let spec = json!({"replicas": i32::MAX, "podManagementPolicy": "Parallel"});
    assert_eq!(world(spec).moves().split(' ').count(), super::super::BURST);
}

/// With another start, what lies below goes too.
#[test]
fn ordinals_start_where_the_user_says() {
    let start = |start: i32, pods: &[&str]| {
        world(json!({"replicas": 2, "ordinals": {"start": start}})).pods(pods).moves()
    };
    assert_eq!(start(5, &[]), "+db-5");
    assert_eq!(start(5, &["5 ready"]), "+db-6");
    assert_eq!(start(2, &["0 ready", "1 ready", "2 ready", "3 ready"]), "-db-1");
    assert_eq!(start(0, &["0 ready", "1 ready", "5 ready"]), "-db-5");
    assert_eq!(start(i32::MAX - 1, &[]), "+db-2147483646");
}

#[test]
fn ordinals_that_cannot_be_written_are_refused() {
    let start =
        world(json!({"replicas": 2, "ordinals": {"start": i32::MAX}, "podManagementPolicy": "Parallel"}));
    assert_snapshot!(start.plan().to_string(), @r#"
    1. patch StatefulSet shop/db status {"collisionCount":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"spec.ordinals.start (2147483647) plus spec.replicas (2) must not exceed 2147483648: lower one of them","reason":"InvalidOrdinals","status":"True","type":"ReplicaFailure"}]}
    event InvalidOrdinals: spec.ordinals.start (2147483647) plus spec.replicas (2) must not exceed 2147483648: lower one of them
    waiting on 0 of 2 pods created
    waiting on you: spec.ordinals.start (2147483647) plus spec.replicas (2) must not exceed 2147483648: lower one of them
    "#);
}

#[test]
fn a_rolling_update_goes_down_to_its_partition() {
    let old = ["0 ready rev=db-v1", "1 ready rev=db-v1", "2 ready rev=db-v1"];
    for (partition, pods, moves) in [
        (0, old.to_vec(), "-db-2"),
        (2, old.to_vec(), "-db-2"),
        (3, old.to_vec(), ""),
        (9, old.to_vec(), ""),
        (0, vec![old[0], old[1], "2 ready"], "-db-1"),
        (2, vec![old[0], old[1], "2 ready"], ""),
        (0, vec![old[0], old[1], "2 starting"], ""),
        (0, vec![old[0], old[1], "2 ready going"], ""),
        (0, vec![old[0], old[1]], "+db-2"),
        (0, vec!["0 ready", "1 ready", "2 ready"], ""),
    ] {
        let spec = json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": partition}}});
        let start = world(spec).current("db-v1").pods(&pods);
        assert_eq!(start.moves(), moves, "{partition} {pods:?}");
    }
}

/// The partition counts from the first ordinal, for new pods as for replaced ones.
#[test]
fn a_partition_means_the_same_for_new_pods() {
    let image = |start: i32, partition: i32, pods: &[&str]| {
        let spec = json!({"replicas": 2, "ordinals": {"start": start},
            "updateStrategy": {"rollingUpdate": {"partition": partition}}});
        let plan = world(spec).current("db-v1").pods(pods).plan();
        let create = plan.actions().find(|action| action.reason == "CreatePod").unwrap();
        let trysail_core::plan::Verb::Create { body, .. } = &create.verb else { unreachable!() };
        let body = body.to_value();
        let image = body["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        (image, body["metadata"]["labels"]["controller-revision-hash"].as_str().unwrap().to_owned())
    };
    let old = ("v1".to_owned(), "db-v1".to_owned());
    let new = ("v2".to_owned(), "db-v2".to_owned());
    assert_eq!(image(0, 1, &[]), old);
    assert_eq!(image(0, 0, &[]), new);
    assert_eq!(image(5, 1, &[]), old);
    assert_eq!(image(5, 1, &["5 ready rev=db-v1"]), new);
    assert_eq!(image(5, 2, &["5 ready rev=db-v1"]), old);
}

#[test]
fn with_on_delete_only_the_user_replaces_pods() {
    let start = world(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}}))
        .current("db-v1")
        .pods(&["0 ready rev=db-v1", "1 ready rev=db-v1"]);
    assert_snapshot!(start.acts(), @r#"
    waiting on you: delete 2 pods of an older revision: spec.updateStrategy.type is OnDelete
    "#);
    let start = world(json!({"replicas": 2, "updateStrategy": {"type": "OnDelete"}})).current("db-v1");
    let plan = start.pods(&["0 ready rev=db-v1"]).plan();
    let create = plan.actions().find(|action| action.reason == "CreatePod").unwrap();
    let trysail_core::plan::Verb::Create { body, .. } = &create.verb else { unreachable!() };
    assert_eq!(body.to_value()["metadata"]["labels"]["controller-revision-hash"], "db-v2");
}

#[test]
fn max_unavailable_is_a_budget() {
    let old = ["0 ready rev=db-v1", "1 ready rev=db-v1", "2 ready rev=db-v1", "3 ready rev=db-v1"];
    for (max, pods, moves) in [
        (json!(1), old.to_vec(), "-db-3"),
        (json!(2), old.to_vec(), "-db-3 -db-2"),
        (json!("50%"), old.to_vec(), "-db-3 -db-2"),
        (json!("1%"), old.to_vec(), "-db-3"),
        (json!(9), old.to_vec(), "-db-3 -db-2 -db-1 -db-0"),
        (json!(2), vec![old[0], old[1], old[2], "3 going rev=db-v1"], "-db-2"),
        (json!(2), vec![old[0], "1 sick rev=db-v1", old[2], "3 starting"], "-db-1"),
        (json!(1), vec![old[0], old[1], "2 sick rev=db-v1", "3 sick rev=db-v1"], "-db-3 -db-2"),
        (json!(2), vec![old[0], old[1], old[2]], "+db-3 -db-2"),
    ] {
        let spec = json!({"replicas": 4, "podManagementPolicy": "Parallel",
            "updateStrategy": {"rollingUpdate": {"maxUnavailable": max}}});
        assert_eq!(world(spec).current("db-v1").pods(&pods).moves(), moves, "{max} {pods:?}");
    }
    let spec =
        json!({"replicas": 4, "updateStrategy": {"rollingUpdate": {"maxUnavailable": 2, "partition": 3}}});
    assert_eq!(world(spec).current("db-v1").pods(&old).moves(), "-db-3");
}

/// Upstream waits for ever: what it waits for cannot come.
#[test]
fn a_broken_revision_does_not_block_its_own_fix() {
    let good = ["0 ready rev=db-v1", "1 ready rev=db-v1"];
    // (current revision, the last pod, what is done); the template is db-v2's.
    for (current, last, moves) in [
        // A broken revision between the good one and the next.
        ("db-v1", "2 starting rev=db-bad", "-db-2"),
        ("db-v1", "2 pending rev=db-bad", "-db-2"),
        ("db-v1", "2 sick rev=db-bad", "-db-2"),
        // Of the good one, and merely ill: it has its turn when it is well.
        ("db-v1", "2 sick rev=db-v1", ""),
        ("db-v1", "2 sick restarts=3 rev=db-v1", ""),
        // Of the good one, but it never came up.
        ("db-v1", "2 pending rev=db-v1", "-db-2"),
        ("db-v1", "2 starting rev=db-v1", "-db-2"),
        // It is new already.
        ("db-v1", "2 starting", ""),
        // Never two at a time.
        ("db-v1", "2 starting going rev=db-bad", ""),
    ] {
        let start = world(json!({"replicas": 3})).current(current).pods(&[good[0], good[1], last]);
        assert_eq!(start.moves(), moves, "{current} {last}");
    }
    let moving = ["0 starting rev=db-bad", "1 ready going rev=db-v1", "2 ready rev=db-v1"];
    let moving = world(json!({"replicas": 3})).current("db-v1").pods(&moving);
    assert_eq!(moving.moves(), "", "another pod is on its way");
    let first = world(json!({"replicas": 3})).current("db-v1").pods(&["0 sick restarts=4 rev=db-v1"]);
    assert_eq!(first.moves(), "-db-0", "a set that never came up");
    let spec = json!({"replicas": 3, "updateStrategy": {"rollingUpdate": {"partition": 3}}});
    let kept = world(spec).current("db-v1").pods(&[good[0], good[1], "2 starting rev=db-bad"]);
    assert_eq!(kept.moves(), "", "below the partition");
    let spec = json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}});
    let kept = world(spec).current("db-v1").pods(&[good[0], good[1], "2 starting rev=db-bad"]);
    assert_eq!(kept.moves(), "", "OnDelete");
}

#[test]
fn a_template_as_it_was_before_raises_its_revision() {
    let mut start = world(json!({"replicas": 1})).pods(&["0 ready"]);
    start.spec["template"] = template("v1");
    assert_snapshot!(start.acts(), @r#"
    1. patch ControllerRevision shop/db-v1 {"revision":3} (its template is wanted again)
    2. delete Pod shop/db-0 (of an older revision)
    "#);
}

/// A byte of difference must never restart pods.
#[test]
fn a_revision_is_found_by_what_it_means() {
    let mut start = world(json!({"replicas": 1})).pods(&["0 ready"]);
    start.spec["template"] = json!({"spec": {"containers": [{"image": "v2", "name": "main"}], "volumes": null,
        "tolerations": []}, "metadata": {"creationTimestamp": null, "labels": {"app": "db"}}});
    assert_eq!(start.acts(), "nothing to do\n");
}

#[test]
fn old_revisions_go_beyond_the_limit() {
    let mut start = world(json!({"replicas": 1, "revisionHistoryLimit": 1}))
        .pods(&["0 ready rev=db-c"])
        .revisions(&["db-a a", "db-b b", "db-c c", "db-d d", "db-v2 v2"]);
    start.status["currentRevision"] = "db-v2".into();
    assert_snapshot!(start.acts(), @r#"
    1. delete Pod shop/db-0 (of an older revision)
    2. delete ControllerRevision shop/db-a (beyond spec.revisionHistoryLimit)
    2. delete ControllerRevision shop/db-b (beyond spec.revisionHistoryLimit)
    "#);
    let unlimited = json!({"replicas": 0, "revisionHistoryLimit": -1});
    assert_eq!(world(unlimited).acts(), "nothing to do\n");
    assert!(world(json!({"replicas": 0, "revisionHistoryLimit": 0})).acts().contains("shop/db-v1"));
}

#[test]
fn a_pod_that_is_not_ours_is_told_of() {
    let start = world(json!({"replicas": 2})).pods(&["0 foreign ready"]);
    assert_snapshot!(start.plan().to_string(), @r#"
    1. patch StatefulSet shop/db status {"collisionCount":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"pod db-0 is controlled by somebody else, but has the name of a pod of this StatefulSet: delete it or its controller","reason":"PodNameTaken","status":"True","type":"ReplicaFailure"}]}
    event PodNameTaken: pod db-0 is controlled by somebody else, but has the name of a pod of this StatefulSet: delete it or its controller
    waiting on 0 of 2 pods created
    waiting on you: pod db-0 is controlled by somebody else, but has the name of a pod of this StatefulSet: delete it or its controller
    "#);
    let mut told =
        world(json!({"replicas": 2, "podManagementPolicy": "Parallel"})).pods(&["0 stray other ready"]);
    told.face = Face::Crd;
    assert_snapshot!(told.plan().to_string(), @r#"
    1. create Pod shop/db-1 (missing)
    waiting on 0 of 2 pods created
    waiting on you: pod db-0 does not match spec.selector, but has the name of a pod of this StatefulSet: delete it, or let its labels match
    look again at 2026-01-01T00:00:11Z
    "#);
}

#[test]
fn orphans_are_adopted_and_strangers_let_go() {
    let start =
        world(json!({"replicas": 3})).pods(&["0 ready stray", "1 ready other", "x ready", "01 stray"]);
    assert_snapshot!(start.acts(), @r#"
    1. release Pod shop/db-1 (no longer matches the selector)
    1. release Pod shop/db-x (no longer matches the selector)
    1. adopt Pod shop/db-0 (matches the selector)
    waiting on 1 of 3 pods created
    waiting on you: pod db-1 does not match spec.selector, but has the name of a pod of this StatefulSet: delete it, or let its labels match
    "#);
}

#[test]
fn an_identity_is_repaired() {
    let start = world(json!({"replicas": 1})).pods(&["0 ready bare"]);
    assert_snapshot!(start.acts(), @r#"
    1. patch Pod shop/db-0 {"metadata":{"labels":{"apps.kubernetes.io/pod-index":"0","statefulset.kubernetes.io/pod-name":"db-0"}}} (labels of its identity are missing)
    "#);
    let spec = json!({"replicas": 2, "volumeClaimTemplates": claim_templates(&["data"])});
    let start = world(spec).pods(&["0 ready novolume"]).claims(&["data-db-0", "data-db-1"]);
    assert_snapshot!(start.acts(), @r#"
    1. create Pod shop/db-1 (next in order)
    waiting on 1 of 2 pods created
    "#);
}

/// (policy, claims, what is done to them); pods 0 and 1 are there, 1 is condemned.
#[test]
fn claims_go_with_whom_the_policy_says() {
    let policy = |deleted: &str, scaled: &str| json!({"whenDeleted": deleted, "whenScaled": scaled});
    for (retention, claims, patches) in [
        (policy("Retain", "Retain"), ["data-db-0", "data-db-1"], vec![]),
        (
            policy("Retain", "Retain"),
            ["data-db-0 of=set", "data-db-1 of=db-1"],
            vec!["data-db-0:", "data-db-1:"],
        ),
        (
            policy("Delete", "Retain"),
            ["data-db-0", "data-db-1"],
            vec!["data-db-0:StatefulSet", "data-db-1:StatefulSet"],
        ),
        (policy("Delete", "Retain"), ["data-db-0 of=set", "data-db-1 of=set"], vec![]),
        (policy("Retain", "Delete"), ["data-db-0", "data-db-1"], vec!["data-db-1:Pod"]),
        (policy("Delete", "Delete"), ["data-db-0 of=set", "data-db-1 of=set"], vec!["data-db-1:Pod"]),
        (policy("Delete", "Delete"), ["data-db-0 of=set", "data-db-1 of=db-1"], vec![]),
        // What somebody else controls is not touched, but for our own references.
        (
            policy("Delete", "Delete"),
            ["data-db-0 keeper", "data-db-1 keeper of=db-1"],
            vec!["data-db-1:Keeper"],
        ),
        (policy("Retain", "Retain"), ["data-db-0 keeper", "data-db-1 keeper"], vec![]),
        // What is going is left alone.
        (policy("Delete", "Retain"), ["data-db-0 going", "data-db-1 of=set"], vec![]),
    ] {
        let spec = json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data"]),
            "persistentVolumeClaimRetentionPolicy": retention});
        let plan = world(spec).pods(&["0 ready", "1 ready"]).claims(&claims).plan();
        let changed = plan.actions().filter(|action| action.reason == "UpdateClaim").map(|action| {
            let trysail_core::plan::Verb::Patch { body, .. } = &action.verb else { unreachable!() };
            let owners = body["metadata"]["ownerReferences"].as_array().unwrap();
            let kinds: Vec<_> = owners.iter().map(|owner| owner["kind"].as_str().unwrap()).collect();
            format!("{}:{}", action.target.key.name, kinds.join(","))
        });
        assert_eq!(changed.collect::<Vec<_>>(), patches, "{retention} {claims:?}");
    }
}

/// Whoever deleted the pod before it was scaled down has not kept its claim.
#[test]
fn claims_go_with_a_pod_that_goes_already() {
    for policy in ["OrderedReady", "Parallel"] {
        let spec = json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data"]), "podManagementPolicy": policy,
            "persistentVolumeClaimRetentionPolicy": {"whenScaled": "Delete"}});
        let start = world(spec).pods(&["0 ready", "1 ready going"]).claims(&["data-db-0", "data-db-1"]);
        assert!(
            start.acts().contains("patch PersistentVolumeClaim shop/data-db-1"),
            "{policy}: {}",
            start.acts()
        );
        assert_eq!(start.moves(), "", "{policy}");
    }
}

#[test]
fn a_claim_that_somebody_else_controls_is_told_of() {
    let plan = |deleted: &str| {
        let spec = json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data"]),
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": deleted}});
        world(spec).pods(&["0 ready"]).claims(&["data-db-0 keeper"]).plan()
    };
    assert_snapshot!(plan("Delete").to_string(), @r#"
    1. patch StatefulSet shop/db status {"availableReplicas":1,"collisionCount":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"PersistentVolumeClaim data-db-0 is controlled by somebody else: the retention policy does not apply to it. Remove that owner reference, or set the policy to Retain","reason":"ConflictingController","status":"True","type":"ReplicaFailure"}],"currentReplicas":1,"readyReplicas":1,"replicas":1,"updatedReplicas":1}
    event ConflictingController: PersistentVolumeClaim data-db-0 is controlled by somebody else: the retention policy does not apply to it. Remove that owner reference, or set the policy to Retain
    "#);
    assert!(plan("Retain").events.is_empty());
}

/// A pod that took a claim which is about to vanish would lose its data.
#[test]
fn a_pod_waits_for_claims_that_are_on_their_way_out() {
    let spec = json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data"])});
    for claim in ["data-db-0 going", "data-db-0 of=db-0", "data-db-0 of=former"] {
        let start = world(spec.clone()).claims(&[claim]);
        assert_eq!(start.moves(), "", "{claim}");
        assert!(
            start.acts().contains("waiting on PersistentVolumeClaim shop/data-db-0 to be"),
            "{}",
            start.acts()
        );
    }
    assert_eq!(world(spec).claims(&["data-db-0 keeper"]).moves(), "+db-0");
}

#[test]
fn a_pending_pod_gets_its_lost_claims_back() {
    for policy in ["OrderedReady", "Parallel"] {
        let spec = json!({"replicas": 1, "podManagementPolicy": policy,
            "volumeClaimTemplates": claim_templates(&["data"])});
        let plan = |pod| world(spec.clone()).pods(&[pod]).acts();
        assert!(plan("0 pending").contains("create PersistentVolumeClaim shop/data-db-0"), "{policy}");
        assert!(!plan("0 ready").contains("create"), "{policy}");
        assert!(!plan("0 pending going").contains("create"), "{policy}");
    }
}

#[test]
fn two_claims_of_one_name_are_refused() {
    let start =
        world(json!({"replicas": 1, "volumeClaimTemplates": claim_templates(&["data", "log", "data"])}));
    assert_snapshot!(start.acts(), @r#"
    event DuplicateClaimTemplate: spec.volumeClaimTemplates has two entries named data: pods could mount only one of them. Entries cannot be changed, so delete the StatefulSet (kubectl delete --cascade=orphan keeps its pods) and apply it with different names
    waiting on 0 of 1 pods created
    waiting on you: spec.volumeClaimTemplates has two entries named data: pods could mount only one of them. Entries cannot be changed, so delete the StatefulSet (kubectl delete --cascade=orphan keeps its pods) and apply it with different names
    "#);
}

/// A refused claim holds up its own pod only.
#[test]
fn a_refusal_bars_what_it_was_about() {
    let refused = |action| Refusal {
        action,
        message: "exceeded quota".to_owned(),
        attempts: 2,
        retry_at: now() + SignedDuration::from_secs(4),
    };
    let spec = json!({"replicas": 2, "podManagementPolicy": "Parallel",
        "volumeClaimTemplates": claim_templates(&["data"])});
    let mut start = world(spec).pods(&["5 ready"]).claims(&["data-db-0"]);
    for (action, moves) in
        [("CreateClaim", "-db-5 +db-0"), ("CreatePod", "-db-5"), ("DeletePod", "+db-0 +db-1")]
    {
        start.refusal = Some(refused(action));
        assert_eq!(start.moves(), moves, "{action}");
    }
    start.refusal = Some(refused("CreateClaim"));
    assert_snapshot!(start.plan().to_string(), @r#"
    1. delete Pod shop/db-5 (beyond spec.replicas)
    2. create Pod shop/db-0 (missing)
    waiting on the API server, which refused: exceeded quota (next attempt at 2026-01-01T00:00:14Z)
    waiting on 1 of 2 pods created
    look again at 2026-01-01T00:00:11Z
    "#);
}

#[test]
fn min_ready_seconds_are_waited_for() {
    let start = world(json!({"replicas": 2, "minReadySeconds": 30})).pods(&["0 ready=5"]);
    assert_snapshot!(start.plan().to_string(), @r#"
    1. patch StatefulSet shop/db status {"collisionCount":0,"currentReplicas":1,"readyReplicas":1,"replicas":1,"updatedReplicas":1}
    waiting on 1 of 2 pods created
    waiting on Pod shop/db-0 to be ready for spec.minReadySeconds
    look again at 2026-01-01T00:00:35Z
    "#);
    assert_eq!(world(json!({"replicas": 2, "minReadySeconds": 30})).pods(&["0 ready=30"]).moves(), "+db-1");
}

#[test]
fn a_complete_update_becomes_the_current_revision() {
    let complete = world(json!({"replicas": 2})).current("db-v1").pods(&["0 ready", "1 ready"]);
    assert_snapshot!(complete.plan().to_string(), @r#"
    1. patch StatefulSet shop/db status {"availableReplicas":2,"collisionCount":0,"currentReplicas":2,"currentRevision":"db-v2","readyReplicas":2,"replicas":2,"updatedReplicas":2}
    "#);
    let partition = json!({"replicas": 2, "updateStrategy": {"rollingUpdate": {"partition": 1}}});
    let standing = world(partition).current("db-v1").pods(&["0 ready rev=db-v1", "1 ready"]);
    assert_snapshot!(standing.plan().to_string(), @r#"
    1. patch StatefulSet shop/db status {"availableReplicas":2,"collisionCount":0,"currentReplicas":1,"readyReplicas":2,"replicas":2,"updatedReplicas":1}
    waiting on you: lower spec.updateStrategy.rollingUpdate.partition (1) to update 1 more pods
    "#);
}

#[test]
fn a_set_that_is_deleted_reports_and_does_nothing() {
    let mut start = world(json!({"replicas": 2})).pods(&["0 failed", "1 stray ready"]);
    start.is_deleted = true;
    start.face = Face::Crd;
    assert_snapshot!(start.plan().to_string(), @r#"
    1. patch StatefulSet shop/db status {"availableReplicas":0,"collisionCount":0,"conditions":[{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"0 of 2 pods available","reason":"Scaling","status":"False","type":"Ready"},{"lastTransitionTime":"2026-01-01T00:00:10Z","message":"0 of 2 pods available","reason":"Scaling","status":"True","type":"Reconciling"}],"containers":"main","currentReplicas":1,"images":"v2","ready":"0/2","readyReplicas":0,"replicas":1,"selector":"app=db","updatedReplicas":1}
    waiting on its own deletion
    waiting on 1 of 2 pods created
    "#);
}

/// Three failures in a row are replaced at once, the fourth a second later.
#[test]
fn pods_that_keep_failing_are_replaced_more_slowly() {
    let mut start = world(json!({"replicas": 1}));
    for round in 1..=5 {
        start.pods = vec!["0 failed=Evicted".to_owned()];
        let plan = start.plan();
        let deletes = plan.actions().filter(|action| action.reason == "DeletePod").count();
        assert_eq!(deletes, usize::from(round <= 3), "{round}: {plan}");
        start.memory = plan.memory;
        // The next one fails as well.
        if let Some(held) = start.memory.failures.get_mut(&0) {
            assert_eq!(held.count, round);
            held.last = format!("another {round}").as_str().into();
        }
    }
    start.pods = vec!["0 ready".to_owned()];
    assert!(start.plan().memory.failures.is_empty(), "a pod that serves starts the count anew");
}
