//! `inspect` and `repair`: the findings of a start, without serving.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Result;
use trysail_csi::model::PoolSettings;
use trysail_csi::model::pool::Change;
use trysail_csi::store::{PoolConfig, Store, inspect as look};
use trysail_csi::sys::linux::Linux;

use crate::options::{InspectArgs, RepairArgs};

/// Shows a pool. Something to repair ends with 1, so that a script notices.
pub(crate) fn inspect(args: &InspectArgs) -> Result<ExitCode> {
    let report = look(&Linux::new(&[])?, &args.directory)?;
    println!("pool {} ({}), made {}", report.marker.id(), report.marker.uuid, report.marker.created);
    for change in &report.reconciled.index {
        match change {
            Change::Volume(volume) => {
                let holds = volume.spec.filesystem.map_or("block".to_owned(), |fs| fs.to_string());
                let kind = volume.spec.parameters.provisioning;
                println!(
                    "volume {} {:?} {} bytes {holds} {kind:?}",
                    volume.id, volume.spec.name, volume.size
                );
            }
            Change::Snapshot(snapshot) => {
                println!(
                    "snapshot {} {:?} {} bytes of {}",
                    snapshot.id, snapshot.name, snapshot.size, snapshot.source
                );
            }
            Change::Run(run) => {
                println!("staged {} at {}", run.volume, run.staging.display());
                run.published
                    .keys()
                    .for_each(|path| println!("published {} at {}", run.volume, path.display()));
            }
            Change::NoVolume(_) | Change::NoSnapshot(_) | Change::NoRun(_) => {}
        }
    }
    report.reconciled.repairs.iter().for_each(|repair| println!("to repair: {}", repair.finding));
    Ok(if report.reconciled.repairs.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Repairs a pool, as a start of the driver does.
pub(crate) fn repair(args: &RepairArgs) -> Result<ExitCode> {
    let system = Linux::new(&[])?;
    if args.dry_run {
        for repair in look(&system, &args.directory)?.reconciled.repairs {
            println!("{}", repair.finding);
            repair.plan.steps.iter().for_each(|step| println!("  {step}"));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let config = PoolConfig {
        name: "pool".to_owned(),
        directory: args.directory.clone(),
        settings: PoolSettings::default(),
        create: false,
    };
    let (_store, reports) = Store::open(Arc::new(system), &[config])?;
    let mut code = ExitCode::SUCCESS;
    for (finding, result) in reports.into_iter().flat_map(|report| report.repairs) {
        println!("{finding}");
        if let Err(error) = result {
            println!("  not repaired: {error}");
            code = ExitCode::from(1);
        }
    }
    Ok(code)
}
