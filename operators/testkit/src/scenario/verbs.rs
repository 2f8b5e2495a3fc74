//! Commands that change what is there: pods, nodes, deletions, faults, policies, edits.

use serde_json::{Map, Value, json};
use trysail_core::{Key, Resource, plan::Propagation, resource::PODS};

use super::{Stage, number, word};
use crate::cluster::{Exit, Writer};

impl Stage {
    pub(super) fn pod_command(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        for key in self.pods(word(rest, 0)?)? {
            match verb {
                "ready" => self.cluster.make_ready(&key, true),
                "unready" => self.cluster.make_ready(&key, false),
                "fail" => self.cluster.finish(&key, "Failed"),
                "exit" => self.cluster.exit(&key, code(rest)?),
                "evict" => self.cluster.evict(&key),
                "force" => self.cluster.delete_by_force(&key),
                "relabel" => {
                    let patch = json!({"metadata": {"labels": {"app": word(rest, 1)?}}});
                    self.patch(PODS, &key, &patch)?;
                }
                _ => {
                    let cost = json!({"controller.kubernetes.io/pod-deletion-cost": word(rest, 1)?});
                    self.patch(PODS, &key, &json!({"metadata": {"annotations": cost}}))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn node_command(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        let node = word(rest, 0)?;
        match verb {
            "node" => {
                let labels: Map<String, Value> = rest[1..]
                    .iter()
                    .filter_map(|label| label.split_once('='))
                    .map(|(key, value)| (key.to_owned(), value.into()))
                    .collect();
                self.cluster.add_node(node, &labels.into()).map_err(|error| format!("{error:?}"))?;
            }
            "down" => self.cluster.node_down(node),
            "up" => self.cluster.node_up(node),
            "remove-node" => self.cluster.remove_node(node),
            "cordon" => self.cluster.cordon(node, true),
            "uncordon" => self.cluster.cordon(node, false),
            "untaint" => self.cluster.taint(node, word(rest, 1)?, "", None),
            "taint" => {
                let (taint, effect) = word(rest, 1)?.rsplit_once(':').ok_or("taint with what effect?")?;
                let (key, value) = taint.split_once('=').unwrap_or((taint, ""));
                self.cluster.taint(node, key, value, Some(effect));
            }
            _ => {
                let value = rest.get(2).map_or(Value::Null, |value| (*value).into());
                self.cluster.label_node(node, word(rest, 1)?, &value);
            }
        }
        Ok(())
    }

    pub(super) fn delete(&mut self, verb: &str, target: &str) -> Result<(), String> {
        let targets = if target.contains('#') {
            self.pods(target)?.into_iter().map(|key| (PODS, key)).collect()
        } else {
            vec![self.target(target)?]
        };
        for (resource, key) in targets {
            let propagation = match verb {
                "orphan" => {
                    self.cluster.delete_and_orphan(resource, &key);
                    continue;
                }
                "foreground" => Propagation::Foreground,
                // As kubectl asks for it.
                _ => Propagation::Background,
            };
            let deleted = self.cluster.delete_with(resource, &key, None, Some(propagation), Writer::Other);
            deleted.map_err(|error| format!("{error:?}"))?;
        }
        Ok(())
    }

    pub(super) fn fault(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        match verb {
            "lag" => match rest.get(1) {
                Some(kind) => self.manager.set_lag_of(self.resource(kind)?, number(rest, 0).unwrap_or(0)),
                None => self.manager.set_lag(number(rest, 0).unwrap_or(0)),
            },
            "lose" => self.manager.faults.lose_reply_after = Some(number(rest, 0).unwrap_or(0) as u32),
            "miss" => {
                self.manager.miss_events(self.resource(word(rest, 0)?)?, number(rest, 1).unwrap_or(1));
            }
            "repeat" => {
                self.manager.repeat_events(self.resource(word(rest, 0)?)?, number(rest, 1).unwrap_or(1));
            }
            "relist" => {
                let resource = rest.first().map(|kind| self.resource(kind)).transpose()?;
                self.manager.relist(resource, &self.cluster);
            }
            _ => match number(rest, 0) {
                Some(after) => self.manager.faults.crash_after = Some(after as u32),
                None => self.manager.crash(&self.cluster),
            },
        }
        Ok(())
    }

    pub(super) fn policy(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        let policy = &mut self.cluster.policy;
        let kubelet = &mut self.cluster.kubelet;
        let static_verb = |text: &str| ["create", "update", "delete"].into_iter().find(|verb| *verb == text);
        match verb {
            "quota" => policy.pod_quota = number(rest, 0),
            "deny" | "allow" => {
                let on = static_verb(word(rest, 0)?).ok_or("deny or allow what?")?;
                let id = (on, word(rest, 1)?.to_owned());
                if verb == "deny" {
                    policy.deny.insert(id, rest[2..].join(" "));
                } else {
                    policy.deny.remove(&id);
                }
            }
            "stamp" => policy.stamp_templates = Some((word(rest, 0)?.to_owned(), word(rest, 1)?.to_owned())),
            "broken" => drop(kubelet.broken_images.insert(word(rest, 0)?.to_owned())),
            "manual" => kubelet.ready_after = None,
            "exits" => {
                let exit = Exit { after: number(rest, 2).unwrap_or(1) as u32, code: code(rest)? };
                kubelet.exits.insert(word(rest, 0)?.to_owned(), exit);
            }
            _ => kubelet.terminate_after = number(rest, 0).unwrap_or(1) as u32,
        }
        Ok(())
    }

    pub(super) fn edit(&mut self, verb: &str, rest: &[&str]) -> Result<(), String> {
        const ROLLBACK: &str = "deprecated.deployment.rollback.to";
        let (resource, key) = self.target(word(rest, 0)?)?;
        let patch = match verb {
            "scale" => {
                let size = number(rest, 1).ok_or("scale to what?")?;
                let field = if resource.plural == "jobs" { "parallelism" } else { "replicas" };
                json!({"spec": {field: size}})
            }
            "pause" => json!({"spec": {"paused": true}}),
            "resume" => json!({"spec": {"paused": false}}),
            "suspend" => json!({"spec": {"suspend": true}}),
            "unsuspend" => json!({"spec": {"suspend": false}}),
            "undo" => json!({"metadata": {"annotations": {ROLLBACK: rest.get(1).unwrap_or(&"0")}}}),
            "annotate" => {
                let value = rest.get(2).map_or(Value::Null, |value| (*value).into());
                json!({"metadata": {"annotations": {word(rest, 1)?: value}}})
            }
            "image" => {
                let image = word(rest, 1)?;
                let pods = json!({"template": {"spec": {"containers": [{"name": "main", "image": image}]}}});
                let is_cron = resource.plural == "cronjobs";
                if is_cron { json!({"spec": {"jobTemplate": {"spec": pods}}}) } else { json!({"spec": pods}) }
            }
            "patch" => serde_json::from_str(&rest[1..].join(" ")).map_err(|error| error.to_string())?,
            _ => return Err(format!("unknown command {verb}")),
        };
        let subresource = patch.get("status").is_some().then_some("status");
        let patched = self.cluster.patch(resource, &key, (None, 0), subresource, &patch, Writer::Other);
        patched.map(drop).map_err(|error| format!("{error:?}"))
    }

    fn patch(&mut self, resource: Resource, key: &Key, patch: &Value) -> Result<(), String> {
        let patched = self.cluster.patch(resource, key, (None, 0), None, patch, Writer::Other);
        patched.map(drop).map_err(|error| format!("{error:?}"))
    }
}

fn code(rest: &[&str]) -> Result<i64, String> {
    word(rest, 1)?.parse().map_err(|_| "which exit code?".to_owned())
}
