//! From what the user wrote to one object of one face.

use anyhow::{Result, bail};
use kube::api::PatchParams;
use serde_json::Value;
use trysail_core::{Face, Resource};

use crate::{
    cluster::Cluster,
    edit::{merge_patch, with_precondition},
    failure::{Cause, Failure},
    kind::{Kind, KindArg, printed},
};

/// How often a change is tried anew when someone else was faster.
const CONFLICT_RETRIES: usize = 5;

/// The workload that a command is about, as last read.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) face: Face,
    pub(crate) name: String,
    pub(crate) object: Value,
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    Yes,
    /// It was so already.
    No,
}

/// Whether writes are really done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum DryRun {
    /// Write
    #[default]
    None,
    /// Send nothing that writes
    Client,
    /// Let the server check the write without keeping it
    Server,
}

impl DryRun {
    /// What kubectl appends to the line that it prints.
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }
}

impl Target {
    /// Reads the object, choosing the face where the kind leaves it open.
    pub(crate) async fn find(cluster: &Cluster, arg: KindArg, name: &str) -> Result<Self> {
        let kind = arg.kind;
        let read = async |face| cluster.get(kind.resource(face), name).await;
        let (face, object) = match arg.face {
            Some(face) => (face, read(face).await?),
            None => {
                let (own, native) = futures::join!(read(Face::Crd), read(Face::Native));
                choose(kind, name, own, native)?
            }
        };
        Ok(Self { kind, face, name: name.to_owned(), object })
    }

    pub(crate) fn resource(&self) -> Resource {
        self.kind.resource(self.face)
    }

    /// `deployment.apps.trysail.dev/web`
    pub(crate) fn printed(&self) -> String {
        printed(self.resource(), &self.name)
    }

    /// Refuses kinds that have no rollouts.
    pub(crate) fn must_roll_out(&self, verb: &str) -> Result<()> {
        match self.kind {
            Kind::Deployment | Kind::StatefulSet | Kind::DaemonSet => return Ok(()),
            Kind::ReplicaSet | Kind::ReplicationController => {}
        }
        bail!(
            "{verb} is not supported for {}: its pods are not replaced when its template changes, so it has no \
             rollouts. The Deployment that owns it may be what you mean",
            self.printed()
        )
    }

    /// Writes what `wish` makes of the object, on the version it was shown; reads and asks again on a conflict.
    pub(crate) async fn change(
        &mut self,
        cluster: &Cluster,
        manager: &str,
        dry_run: DryRun,
        mut wish: impl AsyncFnMut(&Value) -> Result<Option<Value>>,
    ) -> Result<Changed> {
        let params = PatchParams {
            field_manager: Some(manager.to_owned()),
            dry_run: dry_run == DryRun::Server,
            ..PatchParams::default()
        };
        for attempt in 0.. {
            let Some(wished) = wish(&self.object).await? else { return Ok(Changed::No) };
            let Some(patch) = merge_patch(&self.object, &wished) else { return Ok(Changed::No) };
            if dry_run == DryRun::Client {
                return Ok(Changed::Yes);
            }
            let patch = with_precondition(patch, &self.object);
            match cluster.patch(self.resource(), &self.name, &patch, &params).await {
                Ok(object) => {
                    self.object = object;
                    return Ok(Changed::Yes);
                }
                Err(Failure { cause: Cause::Conflict(_), .. }) if attempt < CONFLICT_RETRIES => {
                    self.object = cluster.get(self.resource(), &self.name).await?;
                }
                Err(failure) => return Err(failure.into()),
            }
        }
        unreachable!("the loop ends by returning")
    }
}

type Read = Result<Value, Failure>;

/// A name that only one face has means that face.
fn choose(kind: Kind, name: &str, own: Read, native: Read) -> Result<(Face, Value)> {
    match (own, native) {
        (Ok(_), Ok(_)) => bail!(
            "there are two {}s named \"{name}\"; say which one you mean: {}/{name} (apps.trysail.dev) or {}/{name} (built-in)",
            kind.singular(),
            kind.precise(Face::Crd),
            kind.precise(Face::Native),
        ),
        (Ok(object), Err(_)) => Ok((Face::Crd, object)),
        (Err(_), Ok(object)) => Ok((Face::Native, object)),
        (Err(own), Err(native)) => match (&own.cause, &native.cause) {
            // The face that could not be asked is the one to tell about.
            (Cause::NotFound | Cause::NotServed, Cause::NotFound | Cause::NotServed) => {
                let missing =
                    if matches!(own.cause, Cause::NotServed) { " (which is not installed)" } else { "" };
                bail!(
                    "{} \"{name}\" not found, neither of apps.trysail.dev{missing} nor built-in: {native}",
                    kind.singular()
                )
            }
            (Cause::NotFound | Cause::NotServed, _) => Err(native.into()),
            _ => Err(own.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{failure::Attempt, fake::Fake};

    fn failed(face: Face, cause: Cause) -> Read {
        let attempt = Attempt::new("get", Kind::Deployment.resource(face), "shop", "https://h/").name("web");
        Err(attempt.because(cause))
    }

    fn chosen(own: Read, native: Read) -> Result<Face, String> {
        choose(Kind::Deployment, "web", own, native).map(|(face, _)| face).map_err(|error| error.to_string())
    }

    #[test]
    fn the_face_that_has_the_name_is_meant() {
        let found = || Ok(json!({}));
        assert_eq!(chosen(found(), failed(Face::Native, Cause::NotFound)), Ok(Face::Crd));
        assert_eq!(chosen(failed(Face::Crd, Cause::NotServed), found()), Ok(Face::Native));
        assert_eq!(chosen(failed(Face::Crd, Cause::Forbidden("no".into())), found()), Ok(Face::Native));
    }

    #[test]
    fn the_rest_is_told() {
        let absent = |face| failed(face, Cause::NotFound);
        insta::assert_snapshot!([
            chosen(Ok(json!({})), Ok(json!({}))),
            chosen(absent(Face::Crd), absent(Face::Native)),
            chosen(failed(Face::Crd, Cause::NotServed), absent(Face::Native)),
            chosen(absent(Face::Crd), failed(Face::Native, Cause::Forbidden("no".into()))),
        ].map(Result::unwrap_err).join("\n"), @r#"
        there are two deployments named "web"; say which one you mean: tdeploy/web (apps.trysail.dev) or deployment.apps/web (built-in)
        deployment "web" not found, neither of apps.trysail.dev nor built-in: deployments.apps "web" not found in namespace shop
        deployment "web" not found, neither of apps.trysail.dev (which is not installed) nor built-in: deployments.apps "web" not found in namespace shop
        cannot get deployments.apps "web" in namespace shop: no
          your role needs the verb "get" on deployments.apps
        "#);
    }

    const WEB: &str = "/apis/apps.trysail.dev/v1/namespaces/shop/deployments/web";

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// A change that was wished for on an old reading is wished for again on a new one, never forced.
    #[test]
    fn a_conflict_is_met_by_reading_and_wishing_again() {
        let fake =
            Fake::with([(WEB, json!({"metadata": {"name": "web", "uid": "u"}, "spec": {"replicas": 1}}))]);
        fake.refuse_writes(2);
        let mut seen = Vec::new();
        runtime().block_on(async {
            let cluster = fake.cluster();
            let arg = KindArg { kind: Kind::Deployment, face: None };
            let mut target = Target::find(&cluster, arg, "web").await.unwrap();
            assert_eq!(target.face, Face::Crd, "only that face has the name");
            let wish = async |object: &Value| {
                seen.push(object["metadata"]["resourceVersion"].clone());
                Ok(Some(crate::rollout::change::pause(object)?))
            };
            assert_eq!(target.change(&cluster, "m", DryRun::None, wish).await.unwrap(), Changed::Yes);
        });
        assert_eq!(seen.len(), 3);
        assert_eq!(fake.get(WEB).unwrap()["spec"], json!({"replicas": 1, "paused": true}));
    }

    #[test]
    fn a_client_side_dry_run_writes_nothing() {
        let fake = Fake::with([(WEB, json!({"metadata": {"name": "web", "uid": "u"}}))]);
        runtime().block_on(async {
            let cluster = fake.cluster();
            let arg = KindArg { kind: Kind::Deployment, face: Some(Face::Crd) };
            let mut target = Target::find(&cluster, arg, "web").await.unwrap();
            let wish = async |object: &Value| crate::rollout::change::pause(object).map(Some);
            assert_eq!(target.change(&cluster, "m", DryRun::Client, wish).await.unwrap(), Changed::Yes);
        });
        assert!(fake.writes().is_empty(), "{:?}", fake.writes());
    }
}
