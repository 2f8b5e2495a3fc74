//! How a pod is decoded. Servers send metadata first, and it says whether the details are kept: when not, their
//! fields are skipped unread.

use std::{fmt, marker::PhantomData};

use jiff::Timestamp;
use serde::{
    Deserialize, Deserializer,
    de::{self, IgnoredAny, MapAccess},
};

use super::{
    CRON_JOB_SCHEDULED_TIMESTAMP, ContainerState, JOB_COMPLETION_INDEX, JOB_INDEX_FAILURE_COUNT,
    JOB_INDEX_IGNORED_FAILURE_COUNT, JOB_UNCOUNTED, Phase, Pod, PodCondition, PodDetails, Terminated,
    details,
};
use crate::{Labels, Symbol, meta::MetaWith};

/// How much of a pod is read.
trait Depth: Default {
    const DETAILED: bool;
}

/// Details too.
#[derive(Default)]
struct Detailed;

/// No details.
#[derive(Default)]
struct Slim;

impl Depth for Detailed {
    const DETAILED: bool = true;
}

impl Depth for Slim {
    const DETAILED: bool = false;
}

/// A field that is read with the details, and skipped otherwise.
struct Detail<D, T>(Option<T>, PhantomData<D>);

impl<D, T> Default for Detail<D, T> {
    fn default() -> Self {
        Self(None, PhantomData)
    }
}

impl<'de, D: Depth, T: Deserialize<'de>> Deserialize<'de> for Detail<D, T> {
    fn deserialize<R: Deserializer<'de>>(deserializer: R) -> Result<Self, R::Error> {
        let read = if D::DETAILED {
            Option::<T>::deserialize(deserializer)?
        } else {
            IgnoredAny::deserialize(deserializer)?;
            None
        };
        Ok(Self(read, PhantomData))
    }
}

#[derive(Deserialize, Default)]
struct AnnotationsWire {
    #[serde(rename = "controller.kubernetes.io/pod-deletion-cost", default)]
    deletion_cost: Option<Symbol>,
    #[serde(rename = "batch.kubernetes.io/job-completion-index", default)]
    completion_index: Option<Symbol>,
    #[serde(rename = "batch.kubernetes.io/job-index-failure-count", default)]
    failure_count: Option<Symbol>,
    #[serde(rename = "batch.kubernetes.io/job-index-ignored-failure-count", default)]
    ignored_failure_count: Option<Symbol>,
    #[serde(rename = "batch.trysail.dev/uncounted", default)]
    uncounted: Option<Symbol>,
    #[serde(rename = "batch.kubernetes.io/cronjob-scheduled-timestamp", default)]
    scheduled_timestamp: Option<Symbol>,
}

impl AnnotationsWire {
    /// Those that belong to the details.
    fn kept(&self) -> Labels {
        [
            (JOB_COMPLETION_INDEX, &self.completion_index),
            (JOB_INDEX_FAILURE_COUNT, &self.failure_count),
            (JOB_INDEX_IGNORED_FAILURE_COUNT, &self.ignored_failure_count),
            (JOB_UNCOUNTED, &self.uncounted),
            (CRON_JOB_SCHEDULED_TIMESTAMP, &self.scheduled_timestamp),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.as_deref()?)))
        .collect()
    }
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "D: Depth"))]
struct SpecWire<D> {
    node_name: Option<Symbol>,
    init_containers: Option<Vec<InitContainerWire>>,
    hostname: Detail<D, Symbol>,
    subdomain: Detail<D, Symbol>,
    volumes: Detail<D, Vec<VolumeWire>>,
    affinity: Detail<D, AffinityWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitContainerWire {
    name: Symbol,
    #[serde(default)]
    restart_policy: Option<Symbol>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct VolumeWire {
    name: Symbol,
    #[serde(default)]
    persistent_volume_claim: Option<ClaimWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimWire {
    claim_name: Symbol,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AffinityWire {
    #[serde(default)]
    node_affinity: Option<NodeAffinityWire>,
}

#[derive(Deserialize)]
struct NodeAffinityWire {
    #[serde(rename = "requiredDuringSchedulingIgnoredDuringExecution", default)]
    required: Option<NodeSelectorWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NodeSelectorWire {
    #[serde(default)]
    node_selector_terms: Option<Vec<TermWire>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TermWire {
    #[serde(default)]
    match_fields: Option<Vec<FieldWire>>,
}

#[derive(Deserialize)]
struct FieldWire {
    key: Symbol,
    operator: Symbol,
    #[serde(default)]
    values: Option<Vec<Symbol>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default, bound(deserialize = "D: Depth"))]
struct StatusWire<D> {
    phase: Phase,
    conditions: Option<Vec<ConditionWire<D>>>,
    container_statuses: Option<Vec<ContainerWire<D>>>,
    init_container_statuses: Option<Vec<ContainerWire<D>>>,
    reason: Detail<D, Symbol>,
    start_time: Detail<D, Timestamp>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "D: Depth"))]
struct ConditionWire<D> {
    #[serde(rename = "type")]
    kind: Symbol,
    status: Symbol,
    #[serde(default)]
    last_transition_time: Option<Timestamp>,
    #[serde(default)]
    reason: Detail<D, Symbol>,
    #[serde(default)]
    message: Detail<D, Box<str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "D: Depth"))]
struct ContainerWire<D> {
    name: Symbol,
    #[serde(default)]
    restart_count: i32,
    #[serde(default)]
    state: Detail<D, StateWire>,
}

#[derive(Deserialize)]
struct StateWire {
    #[serde(default)]
    terminated: Option<TerminatedWire>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TerminatedWire {
    #[serde(default)]
    exit_code: i32,
    #[serde(default)]
    finished_at: Option<Timestamp>,
}

/// A spec that is read one way or the other.
#[derive(Default)]
struct Spec {
    node: Symbol,
    sidecars: Vec<Symbol>,
    details: PodDetails,
}

impl<D: Depth> From<SpecWire<D>> for Spec {
    fn from(wire: SpecWire<D>) -> Self {
        let volumes = wire.volumes.0.into_iter().flatten();
        let claims =
            volumes.filter_map(|volume| Some((volume.name, volume.persistent_volume_claim?.claim_name)));
        let details = PodDetails {
            hostname: wire.hostname.0.unwrap_or_default(),
            subdomain: wire.subdomain.0.unwrap_or_default(),
            claims: claims.collect(),
            target_node: wire.affinity.0.and_then(target_node).unwrap_or_default(),
            ..PodDetails::default()
        };
        let init_containers = wire.init_containers.into_iter().flatten();
        let sidecars =
            init_containers.filter(|container| container.restart_policy.as_deref() == Some("Always"));
        Self {
            node: wire.node_name.unwrap_or_default(),
            sidecars: sidecars.map(|container| container.name).collect(),
            details,
        }
    }
}

/// As upstream's `GetTargetNodeName`: the first requirement on the node's name decides.
fn target_node(affinity: AffinityWire) -> Option<Symbol> {
    let terms = affinity.node_affinity?.required?.node_selector_terms?;
    let mut fields = terms.into_iter().flat_map(|term| term.match_fields.unwrap_or_default());
    let field = fields.find(|field| field.key == "metadata.name" && field.operator == "In")?;
    match <[Symbol; 1]>::try_from(field.values?) {
        Ok([name]) => Some(name),
        Err(_) => None,
    }
}

/// A status that is read one way or the other.
#[derive(Default)]
struct Status {
    phase: Phase,
    ready_since: Option<Timestamp>,
    restarts: i32,
    init_restarts: Vec<(Symbol, i32)>,
    details: PodDetails,
}

impl<D: Depth> From<StatusWire<D>> for Status {
    fn from(wire: StatusWire<D>) -> Self {
        let conditions = wire.conditions.unwrap_or_default();
        let containers = wire.container_statuses.unwrap_or_default();
        let init_containers = wire.init_container_statuses.unwrap_or_default();
        let ready = conditions.iter().find(|held| held.kind == "Ready" && held.status == "True");
        let restarted = init_containers.iter().filter(|container| container.restart_count > 0);
        let mut status = Self {
            phase: wire.phase,
            ready_since: ready.map(|held| held.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH)),
            restarts: containers.iter().map(|container| container.restart_count).max().unwrap_or(0),
            init_restarts: restarted
                .map(|container| (container.name.clone(), container.restart_count))
                .collect(),
            details: PodDetails::default(),
        };
        if D::DETAILED {
            let restarts = containers.iter().chain(&init_containers).map(|container| container.restart_count);
            status.details.total_restarts = restarts.fold(0, i32::saturating_add);
            let states = containers.into_iter().map(|container| container.into_state(false));
            let init_states = init_containers.into_iter().map(|container| container.into_state(true));
            status.details.containers = states.chain(init_states).collect();
            status.details.conditions = conditions.into_iter().map(PodCondition::from).collect();
            status.details.reason = wire.reason.0.unwrap_or_default();
            status.details.start_time = wire.start_time.0;
        }
        status
    }
}

impl<D: Depth> ContainerWire<D> {
    fn into_state(self, init: bool) -> ContainerState {
        let terminated = self.state.0.and_then(|state| state.terminated);
        let terminated =
            terminated.map(|end| Terminated { exit_code: end.exit_code, finished_at: end.finished_at });
        ContainerState { name: self.name, init, sidecar: false, terminated }
    }
}

impl<D: Depth> From<ConditionWire<D>> for PodCondition {
    fn from(wire: ConditionWire<D>) -> Self {
        Self {
            kind: wire.kind,
            status: wire.status,
            reason: wire.reason.0.unwrap_or_default(),
            message: wire.message.0.unwrap_or_default(),
            last_transition: wire.last_transition_time,
        }
    }
}

impl<'de> Deserialize<'de> for Pod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Visitor)
    }
}

struct Visitor;

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "camelCase")]
enum Field {
    Metadata,
    Spec,
    Status,
    #[serde(other)]
    Other,
}

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Pod;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a pod")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pod, A::Error> {
        let mut metadata: Option<MetaWith<AnnotationsWire>> = None;
        let mut spec = Spec::default();
        let mut status = Status::default();
        // Until metadata came, details may be asked for.
        let mut detailed = true;
        while let Some(field) = map.next_key()? {
            match field {
                Field::Metadata => {
                    let read: MetaWith<AnnotationsWire> = map.next_value()?;
                    detailed = details::are_kept(&read.meta.labels, &read.finalizers, read.job.as_ref());
                    metadata = Some(read);
                }
                Field::Spec if detailed => spec = read::<_, SpecWire<Detailed>, _>(&mut map)?,
                Field::Spec => spec = read::<_, SpecWire<Slim>, _>(&mut map)?,
                Field::Status if detailed => status = read::<_, StatusWire<Detailed>, _>(&mut map)?,
                Field::Status => status = read::<_, StatusWire<Slim>, _>(&mut map)?,
                Field::Other => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let metadata = metadata.ok_or_else(|| de::Error::missing_field("metadata"))?;
        Ok(assemble(metadata, spec, status, detailed))
    }
}

/// The next value; null is nothing.
fn read<'de, A: MapAccess<'de>, W: Deserialize<'de>, T: From<W> + Default>(
    map: &mut A,
) -> Result<T, A::Error> {
    Ok(map.next_value::<Option<W>>()?.map(T::from).unwrap_or_default())
}

fn assemble(metadata: MetaWith<AnnotationsWire>, spec: Spec, status: Status, detailed: bool) -> Pod {
    let MetaWith { meta, annotations, finalizers, job, grace_seconds } = metadata;
    let sidecars = status.init_restarts.iter().filter(|(name, _)| spec.sidecars.contains(name));
    let sidecar_restarts = sidecars.map(|(_, count)| *count).max().unwrap_or(0);
    let details = detailed.then(|| {
        let mut containers = status.details.containers;
        for container in containers.iter_mut().filter(|container| container.init) {
            container.sidecar = spec.sidecars.contains(&container.name);
        }
        Box::new(PodDetails {
            annotations: annotations.kept(),
            finalizers,
            job,
            grace_seconds,
            total_restarts: status.details.total_restarts,
            reason: status.details.reason,
            conditions: status.details.conditions,
            containers,
            start_time: status.details.start_time,
            ..spec.details
        })
    });
    Pod {
        meta,
        node: spec.node,
        phase: status.phase,
        ready_since: status.ready_since,
        deletion_cost: annotations.deletion_cost.and_then(|cost| cost.parse().ok()).unwrap_or(0),
        restarts: status.restarts,
        sidecar_restarts,
        details,
    }
}
