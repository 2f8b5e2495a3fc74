//! Which moment of the schedule is due, and when the next one is.
//!
//! Upstream estimates the latest missed moment from the distance of the first two, and loses it when the schedule is
//! irregular. Here it is exact.

use jiff::{SignedDuration, Timestamp};

use super::{schedule::Schedule, time_zone::time_zone};
use crate::views::CronJob;

/// What the schedule says at a moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Timing {
    /// `spec.timeZone` names no zone of the database in this program.
    UnknownTimeZone(String),
    /// `spec.schedule` is not understood: why.
    Unparseable(String),
    /// `spec.schedule` is understood and has no moment within years, `30 2 31 2 *` for one.
    Never,
    /// The schedule runs.
    Running {
        /// The latest moment until now that no run is recorded for.
        due: Option<Due>,
        /// The first moment after now.
        next: Option<Timestamp>,
    },
}

/// A moment that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The moment.
    pub time: Timestamp,
    /// How many moments were missed up to it, about: upstream's estimate.
    pub missed: i64,
}

/// A run's place on the line of minutes that names its Job.
pub(super) fn slot(time: Timestamp) -> i64 {
    time.as_second().div_euclid(60)
}

/// The full minute of a slot.
pub(super) fn minute(slot: i64) -> Option<Timestamp> {
    Timestamp::from_second(slot.checked_mul(60)?).ok()
}

/// Reads the schedule at `now`. Moments up to `not_before` are not due: the schedule was another one then.
pub(super) fn timing(cron_job: &CronJob, not_before: Option<Timestamp>, now: Timestamp) -> Timing {
    let name = cron_job.time_zone.as_deref();
    let zone = name.map(|name| time_zone(name).ok_or(name)).transpose();
    let schedule = match zone {
        Err(name) => return Timing::UnknownTimeZone(name.to_owned()),
        Ok(zone) => Schedule::parse(&cron_job.schedule, zone.as_ref()),
    };
    let schedule = match schedule {
        Ok(schedule) => schedule,
        Err(reason) => return Timing::Unparseable(reason.to_string()),
    };
    let since = cron_job.status.last_schedule_time.unwrap_or(cron_job.meta.created);
    let due = schedule.last_between(since, now).map(|time| {
        // What the user has given up on counts as missed no more than what another schedule would have run.
        let reach = cron_job.starting_deadline_seconds.map(SignedDuration::from_secs);
        let reach = reach.and_then(|reach| now.checked_sub(reach).ok());
        let from = [Some(since), not_before, reach].into_iter().flatten().max().unwrap_or(since);
        Due { time, missed: missed(&schedule, from, now) }
    });
    // Moments of `@every` count from the last one.
    let next = schedule.next(due.map_or(since, |due| due.time)).filter(|next| *next > now);
    let next = next.or_else(|| schedule.next(now.max(since)));
    if due.is_none() && next.is_none() {
        return Timing::Never;
    }
    Timing::Running { due: due.filter(|due| not_before.is_none_or(|start| due.time > start)), next }
}

/// About how many moments lie in `(from, now]`: upstream's estimate, by the distance of the first two.
fn missed(schedule: &Schedule, from: Timestamp, now: Timestamp) -> i64 {
    let Some(first) = schedule.next(from).filter(|first| *first <= now) else { return 0 };
    let Some(second) = schedule.next(first).filter(|second| *second <= now) else { return 1 };
    let interval = (second.as_second() - first.as_second()).max(1);
    (now.as_second() - first.as_second()) / interval + 1
}

/// When a moment can no longer run.
pub(super) fn deadline(cron_job: &CronJob, moment: Timestamp) -> Option<Timestamp> {
    let seconds = cron_job.starting_deadline_seconds?;
    // Beyond the end of time there is no deadline.
    moment.checked_add(SignedDuration::from_secs(seconds)).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn read(schedule: &str, last: Option<&str>, now: &str) -> (String, i64, String) {
        let cron_job: CronJob = serde_json::from_value(json!({
            "metadata": {"name": "a", "creationTimestamp": "2026-01-05T10:30:30Z"},
            "spec": {"schedule": schedule, "jobTemplate": {}},
            "status": {"lastScheduleTime": last},
        }))
        .unwrap();
        match timing(&cron_job, None, at(now)) {
            Timing::Running { due, next } => (
                due.map_or_else(String::new, |due| due.time.to_string()),
                due.map_or(0, |due| due.missed),
                next.map_or_else(String::new, |next| next.to_string()),
            ),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_due_counts_from_the_last_run_or_the_creation() {
        let hourly = "0 * * * *";
        assert_eq!(
            read(hourly, None, "2026-01-05T10:59:59Z"),
            (String::new(), 0, "2026-01-05T11:00:00Z".to_owned())
        );
        assert_eq!(
            read(hourly, None, "2026-01-05T11:00:00Z"),
            ("2026-01-05T11:00:00Z".to_owned(), 1, "2026-01-05T12:00:00Z".to_owned())
        );
        let last = Some("2026-01-05T11:00:00Z");
        assert_eq!(
            read(hourly, last, "2026-01-05T11:59:00Z"),
            (String::new(), 0, "2026-01-05T12:00:00Z".to_owned())
        );
        assert_eq!(
            read(hourly, last, "2026-01-05T14:30:00Z"),
            ("2026-01-05T14:00:00Z".to_owned(), 3, "2026-01-05T15:00:00Z".to_owned())
        );
    }

    /// The clock of the machine went back, or that of another one was ahead: nothing runs again.
    #[test]
    fn a_last_run_in_the_future_is_waited_for() {
        let last = Some("2026-01-05T12:00:00Z");
        assert_eq!(
            read("0 * * * *", last, "2026-01-05T09:00:00Z"),
            (String::new(), 0, "2026-01-05T13:00:00Z".to_owned())
        );
    }

    #[test]
    fn every_keeps_its_beat() {
        assert_eq!(
            read("@every 50m", None, "2026-01-05T12:00:00Z"),
            ("2026-01-05T11:20:30Z".to_owned(), 1, "2026-01-05T12:10:30Z".to_owned())
        );
    }

    /// 80 hourly runs over a weekend are few, a hundred of every minute are many.
    #[test]
    fn missed_runs_are_counted() {
        assert_eq!(read("0 * * * *", None, "2026-01-08T18:30:00Z").1, 80);
        assert_eq!(read("* * * * *", None, "2026-01-05T12:11:00Z").1, 101);
    }

    #[test]
    fn a_beat_that_never_comes_is_said_so() {
        let cron_job = |schedule: &str, zone: Option<&str>| -> CronJob {
            let spec = json!({"schedule": schedule, "timeZone": zone, "jobTemplate": {}});
            let metadata = json!({"name": "a", "creationTimestamp": "2026-01-05T10:30:30Z"});
            serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
        };
        let now = at("2026-03-01T00:00:00Z");
        assert_eq!(timing(&cron_job("30 2 31 2 *", None), None, now), Timing::Never);
        assert!(matches!(timing(&cron_job("every day", None), None, now), Timing::Unparseable(_)));
        let unknown = timing(&cron_job("@daily", Some("Mars/Olympus")), None, now);
        assert_eq!(unknown, Timing::UnknownTimeZone("Mars/Olympus".to_owned()));
    }
}
