//! Patches the status of pods at a steady rate, as kubelets do.
//!
//! Nine of ten patches change something that no owner shows; every tenth pod loses or regains readiness, which its
//! ReplicaSet and its Deployment must show. In the end every pod is ready again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use super::client::{Api, STRATEGIC_PATCH};
use super::scale::Scale;
use crate::interrupt;

/// Patches in flight.
const SENDERS: u64 = 8;
/// Of how many pods one changes its readiness.
const FLIPPING: u64 = 10;
/// A prime, such that pods that change their readiness one after the other are of different Deployments.
const STRIDE: u64 = 7333;

/// Patches for the time that `scale` says; returns the rate that was reached.
pub(crate) fn churn(api: &Api, pods: &[(String, String)], scale: &Scale) -> Result<f64> {
    let total = u64::from(scale.churn_rate) * scale.churn.as_secs();
    let begun = Instant::now();
    let sent = AtomicU64::new(0);
    let send = |number: u64| -> Result<()> {
        let due = Duration::from_secs_f64(number as f64 / f64::from(scale.churn_rate));
        thread::sleep(due.saturating_sub(begun.elapsed()));
        patch(api, pods, number)
    };
    let worker = |first: u64| -> Result<()> {
        // A machine that cannot keep the rate gets twice the time, then the phase ends with what was reached.
        for number in (first..total).step_by(SENDERS as usize) {
            interrupt::check()?;
            if begun.elapsed() > scale.churn * 2 {
                break;
            }
            send(number)?;
            sent.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| {
        let worker = &worker;
        let workers: Vec<_> = (0..SENDERS).map(|first| scope.spawn(move || worker(first))).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a sender panicked"))?)
    })?;
    let rate = sent.into_inner() as f64 / begun.elapsed().as_secs_f64();
    restore(api, pods)?;
    Ok(rate)
}

fn patch(api: &Api, pods: &[(String, String)], number: u64) -> Result<()> {
    let count = pods.len() as u64;
    let (at, visit) = (index(number, count), number / count);
    let value = if visit.is_multiple_of(2) { "False" } else { "True" };
    let kind = if flips(at) { "Ready" } else { "bench.trysail.dev/Tick" };
    send(api, &pods[at as usize], &json!({"type": kind, "status": value}))
}

/// Makes every pod ready that the churn left unready.
fn restore(api: &Api, pods: &[(String, String)]) -> Result<()> {
    for pod in pods.iter().step_by(FLIPPING as usize) {
        interrupt::check()?;
        send(api, pod, &json!({"type": "Ready", "status": "True"}))?;
    }
    Ok(())
}

fn send(api: &Api, (namespace, name): &(String, String), condition: &Value) -> Result<()> {
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/status");
    api.patch(&path, STRATEGIC_PATCH, &json!({"status": {"conditions": [condition]}})).map(drop)
}

/// Which pod the patch of that number is for: each once before any comes again.
fn index(number: u64, count: u64) -> u64 {
    if count.is_multiple_of(STRIDE) { number % count } else { number.wrapping_mul(STRIDE) % count }
}

fn flips(at: u64) -> bool {
    at.is_multiple_of(FLIPPING)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Or what should be one change of many owners would be many changes of one.
    #[test]
    fn neighbours_in_time_are_of_different_deployments() {
        for (pods, replicas) in [(200, 20), (10_000, 100)] {
            let flipping = (0..pods).filter(|number| flips(index(*number, pods)));
            let owners: Vec<u64> = flipping.map(|number| index(number, pods) / replicas).collect();
            assert!(owners.windows(2).all(|pair| pair[0] != pair[1]), "{pods}: {owners:?}");
        }
    }

    /// Or some pods would never change, and others twice as often.
    #[test]
    fn every_pod_has_its_turn() {
        for count in [1, 200, 10_000, STRIDE, STRIDE * 2] {
            let mut seen: Vec<u64> = (0..count).map(|number| index(number, count)).collect();
            seen.sort_unstable();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }
}
