//! The answer as people and as machines read it.

use std::fmt;

use serde_json::{Value, json};
use trysail_core::{
    Action, Plan,
    condition::Conditions,
    plan::{Verb, WaitingOn},
};

use super::pods::Troubled;

/// What one plan says about its object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// `deployment.apps.trysail.dev/web`
    pub(super) printed: String,
    /// Why nothing more happens now.
    pub(super) waiting_on: Vec<String>,
    /// What the controller would do at once.
    pub(super) would_do: Vec<String>,
    /// What conditions and warnings say has failed.
    pub(super) failures: Vec<String>,
    /// When the controller looks again by itself.
    pub(super) looks_again: Option<String>,
}

/// Everything about one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) own: Findings,
    pub(super) children: Vec<Findings>,
    pub(super) pods: Vec<Troubled>,
}

impl Findings {
    /// Reads a plan.
    pub(super) fn of<M>(printed: String, plan: &Plan<M>, observed: bool, conditions: &Conditions) -> Self {
        let mut waiting_on: Vec<String> = plan.waiting_on.iter().map(waiting).collect();
        if !observed && plan.is_idle() && waiting_on.is_empty() {
            waiting_on.push("its controller to act on the last change".to_owned());
        }
        let warnings = plan.events.iter().filter(|event| event.warning);
        let warnings = warnings.map(|event| format!("{}: {}", event.reason, event.message));
        Self {
            printed,
            waiting_on,
            would_do: plan.actions().map(action).collect(),
            failures: failed_conditions(conditions).chain(warnings).collect(),
            looks_again: plan.requeue_at.map(|at| at.to_string()),
        }
    }

    /// Nothing to do, nothing to wait for, nothing wrong.
    pub(super) fn is_settled(&self) -> bool {
        self.waiting_on.is_empty() && self.would_do.is_empty() && self.failures.is_empty()
    }

    fn to_json(&self) -> Value {
        json!({
            "workload": self.printed,
            "waitingOn": self.waiting_on,
            "wouldDo": self.would_do,
            "failures": self.failures,
            "looksAgainAt": self.looks_again,
        })
    }
}

/// Conditions that say that something went wrong, in the controller's words.
fn failed_conditions(conditions: &Conditions) -> impl Iterator<Item = String> {
    [("ReplicaFailure", "True"), ("Progressing", "False"), ("Stalled", "True")]
        .into_iter()
        .filter_map(|(kind, bad)| conditions.get(kind).filter(|condition| condition.status == bad))
        .map(|condition| format!("{} ({}): {}", condition.kind, condition.reason, condition.message))
}

fn waiting(on: &WaitingOn) -> String {
    match on {
        WaitingOn::Paused => {
            "you: it is paused, and `trysail rollout resume` lets the rollout go on".to_owned()
        }
        on => on.to_string(),
    }
}

fn action(action: &Action) -> String {
    match &action.verb {
        // The numbers in it are told already.
        Verb::Patch { subresource: Some("status"), .. } => "write its status".to_owned(),
        _ => action.to_string(),
    }
}

impl Answer {
    pub(super) fn new(own: Findings) -> Self {
        Self { own, ..Self::default() }
    }

    /// For machines.
    pub(super) fn to_json(&self) -> Value {
        let mut answer = self.own.to_json();
        answer["owned"] = self.children.iter().map(Findings::to_json).collect();
        let pods = self.pods.iter().map(|pod| json!({"name": pod.name, "reasons": pod.reasons}));
        answer["podsNotReady"] = pods.collect();
        answer
    }
}

fn paragraph(f: &mut fmt::Formatter<'_>, title: &str, lines: &[String]) -> fmt::Result {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(f, "  {title}:")?;
    lines.iter().try_for_each(|line| writeln!(f, "    {line}"))
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_settled() {
            return writeln!(
                f,
                "{} is as it should be: there is nothing to do and nothing to wait for",
                self.printed
            );
        }
        writeln!(f, "{}", self.printed)?;
        paragraph(f, "waits for", &self.waiting_on)?;
        paragraph(f, "has failed", &self.failures)?;
        paragraph(f, "its controller would now (if this stays, is the controller running?)", &self.would_do)?;
        match &self.looks_again {
            Some(at) => writeln!(f, "  looks again at {at}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.own)?;
        for child in &self.children {
            write!(f, "\n{child}")?;
        }
        for Troubled { name, reasons } in &self.pods {
            writeln!(f, "\npod/{name} is not ready")?;
            reasons.iter().try_for_each(|reason| writeln!(f, "  {reason}"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use trysail_core::{
        Face, Key, Resource,
        condition::Condition,
        plan::{EventNote, Target},
    };

    use super::*;

    fn findings() -> Findings {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        let target =
            |resource| Target { resource, key: Key::new("shop", "web"), uid: None, resource_version: 3 };
        let patch = |subresource, because: &str| Action {
            target: target(Resource::replica_sets(Face::Crd)),
            verb: Verb::Patch { subresource, body: json!({"spec": {"replicas": 2}}) },
            reason: "Scale",
            because: because.to_owned(),
            on_success: None,
            on_failure: None,
        };
        let mut plan = Plan::<()>::default();
        plan.wave(vec![patch(None, "2 pods are wanted")]);
        plan.wave(vec![patch(Some("status"), "")]);
        plan.waiting_on.push(WaitingOn::Pods { state: "available", have: 1, want: 3 });
        plan.waiting_on.push(WaitingOn::Paused);
        plan.events.push(EventNote::warning("FailedCreate", "quota"));
        plan.events.push(EventNote::normal("ScalingReplicaSet", "not told: it did not happen"));
        plan.requeue_by(now);
        let mut conditions = Conditions::default();
        conditions.set(Condition::new("Progressing", "False", "ProgressDeadlineExceeded", "too late", now));
        conditions.set(Condition::new("Available", "False", "X", "follows from the rest", now));
        Findings::of("deployment.apps.trysail.dev/web".into(), &plan, true, &conditions)
    }

    #[test]
    fn the_answer_reads_like_this() {
        let troubled =
            Troubled { name: "web-1".into(), reasons: vec!["container c: ImagePullBackOff".into()] };
        let settled = Findings { printed: "replicaset.apps.trysail.dev/web-x".into(), ..Findings::default() };
        let answer = Answer { own: findings(), children: vec![settled], pods: vec![troubled] };
        insta::assert_snapshot!(answer.to_string(), @r#"
        deployment.apps.trysail.dev/web
          waits for:
            1 of 3 pods available
            you: it is paused, and `trysail rollout resume` lets the rollout go on
          has failed:
            Progressing (ProgressDeadlineExceeded): too late
            FailedCreate: quota
          its controller would now (if this stays, is the controller running?):
            patch ReplicaSet shop/web {"spec":{"replicas":2}} (2 pods are wanted)
            write its status
          looks again at 2026-01-01T00:00:00Z

        replicaset.apps.trysail.dev/web-x is as it should be: there is nothing to do and nothing to wait for

        pod/web-1 is not ready
          container c: ImagePullBackOff
        "#);
        insta::assert_snapshot!(format!("{:#}", answer.to_json()), @r#"
        {
          "failures": [
            "Progressing (ProgressDeadlineExceeded): too late",
            "FailedCreate: quota"
          ],
          "looksAgainAt": "2026-01-01T00:00:00Z",
          "owned": [
            {
              "failures": [],
              "looksAgainAt": null,
              "waitingOn": [],
              "workload": "replicaset.apps.trysail.dev/web-x",
              "wouldDo": []
            }
          ],
          "podsNotReady": [
            {
              "name": "web-1",
              "reasons": [
                "container c: ImagePullBackOff"
              ]
            }
          ],
          "waitingOn": [
            "1 of 3 pods available",
            "you: it is paused, and `trysail rollout resume` lets the rollout go on"
          ],
          "workload": "deployment.apps.trysail.dev/web",
          "wouldDo": [
            "patch ReplicaSet shop/web {\"spec\":{\"replicas\":2}} (2 pods are wanted)",
            "write its status"
          ]
        }
        "#);
    }

    #[test]
    fn a_change_that_nobody_has_seen_is_waited_for() {
        let unseen = Findings::of("x".into(), &Plan::<()>::default(), false, &Conditions::default());
        assert_eq!(unseen.waiting_on, ["its controller to act on the last change"]);
        assert!(Findings::of("x".into(), &Plan::<()>::default(), true, &Conditions::default()).is_settled());
    }
}
