//! What is wrong with volumes and pools, in the words of CSI 1.13.

use crate::model::{Error, Result};

use super::Driver;

/// Something that is wrong with a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The volume's id.
    pub volume: String,
    /// For machines.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Driver {
    /// Every volume that is not well, by id.
    pub fn unwell(&self) -> Vec<Health> {
        let mut all = Vec::new();
        for pool in self.store.pools() {
            let index = pool.index();
            all.extend(index.damaged.iter().map(|(volume, why)| Health {
                volume: volume.clone(),
                reason: "Damaged",
                message: why.clone(),
            }));
            if let Some(why) = &index.failed {
                all.extend(index.volumes.keys().map(|id| Health {
                    volume: id.to_string(),
                    reason: "PoolFailed",
                    message: why.clone(),
                }));
            }
        }
        all.sort_by(|a, b| a.volume.cmp(&b.volume));
        all
    }

    /// What is wrong with one volume, which must exist.
    pub fn health(&self, id: &str) -> Result<Vec<Health>> {
        let found: Vec<_> = self.unwell().into_iter().filter(|health| health.volume == id).collect();
        if found.is_empty() {
            match self.pool_of(id) {
                Ok(_) | Err(Error::Precondition(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Pools that cannot be used, and why.
    pub fn failed_pools(&self) -> Vec<(String, String)> {
        let failed = |pool: &crate::store::OpenPool| Some((pool.name.clone(), pool.index().failed.clone()?));
        self.store.pools().iter().filter_map(failed).collect()
    }
}
