//! A run each minute, and no more finished ones kept than is wanted.

use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::json;
use trysail_e2e::{
    TestNamespace, connect,
    history::{History, alive},
    kinds::cron_job,
    object::Object,
    promises, wait,
};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_cron_job_runs_by_the_minute_and_prunes() -> Result<()> {
    super::in_every_face(async |face| {
        let client = connect().await?;
        let namespace = TestNamespace::create(&client, "cron").await?;
        let history =
            History::start(&client, &namespace, &[(face.api_version("Job"), "Job"), ("v1", "Pod")]).await;
        let mut manifest = cron_job(face, "cron", "true");
        manifest["spec"]["successfulJobsHistoryLimit"] = json!(0);
        // The image that the manager runs in has no /usr/share/zoneinfo, nor any other file.
        manifest["spec"]["timeZone"] = json!("Asia/Kathmandu");
        let cron = Object::create(&client, &namespace, &manifest).await?;
        let ran = |cron: &serde_json::Value| cron["status"]["lastSuccessfulTime"].is_string();
        cron.wait("to have run", LIMIT, ran).await?;
        cron.patch(json!({"spec": {"suspend": true}})).await?;
        wait::until("the finished run to be pruned", LIMIT, || async {
            Ok(alive(&history.entries(), |_| true).is_empty())
        })
        .await?;
        let entries = history.finish().await?;
        ensure!(promises::one_job_a_minute(&entries, "cron")? > 0, "no minute had its run");
        namespace.delete().await
    })
    .await
}
