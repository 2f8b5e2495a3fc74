//! `spec.schedule`: which moments a CronJob runs at.
//!
//! The dialect is the one that Kubernetes' validation and controller accept, which is robfig/cron v3's: five fields
//! (minute, hour, day of month, month, day of week) of numbers, names, lists, ranges and steps, `*` and `?`; the
//! descriptors `@yearly`, `@annually`, `@monthly`, `@weekly`, `@daily`, `@midnight`, `@hourly` and `@every DURATION`;
//! and, in objects older than `spec.timeZone`, a leading `TZ=ZONE` or `CRON_TZ=ZONE`. When both days are restricted,
//! either may match.
//!
//! What happens where clocks change is robfig's too, to the minute: `tests/golden/cron.txt` was written by it. In
//! short, a time that is skipped does not run that day, and one that comes twice runs twice.

mod every;
mod field;
mod next;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::time_zone::time_zone;
use field::{Field, HOURS, MINUTES, MONTH_DAYS, MONTHS, WEEK_DAYS};

/// A schedule that was understood.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Schedule {
    moments: Moments,
    zone: TimeZone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moments {
    /// At the full minutes that match.
    Matching(Fields),
    /// So many seconds after the one before.
    Every(i64),
}

/// The five fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fields {
    minute: Field,
    hour: Field,
    month_day: Field,
    month: Field,
    week_day: Field,
}

/// Why a schedule was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unparseable(String);

impl Schedule {
    /// Understands `spec.schedule`. A zone inside of it comes before `zone`, as upstream has it; without either, the
    /// fields are UTC.
    pub(super) fn parse(schedule: &str, zone: Option<&TimeZone>) -> Result<Self, Unparseable> {
        let mut zone = zone.cloned();
        // Upstream puts the zone in front and trims what follows it.
        let mut text = if zone.is_some() { schedule.trim() } else { schedule };
        if let Some(rest) = text.strip_prefix("CRON_TZ=").or_else(|| text.strip_prefix("TZ=")) {
            let (name, rest) = rest.split_once(' ').ok_or_else(|| refused("a zone and no fields", text))?;
            zone = Some(inline_zone(name).ok_or_else(|| refused("unknown time zone", name))?);
            text = rest.trim();
        }
        let zone = zone.unwrap_or(TimeZone::UTC);
        Ok(Self { moments: moments(text)?, zone })
    }

    /// The first moment after `after`; `None` when there is none in the next five years.
    pub(super) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.moments {
            Moments::Matching(fields) => next::next(fields, &self.zone, after),
            Moments::Every(seconds) => from_second(whole_second(after)?.checked_add(*seconds)?),
        }
    }

    /// The last moment in `(after, until]`, and the first after that one: exact, and cheap however far apart the
    /// two are. Moments of `@every` count from `after`.
    pub(super) fn last_between(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = self.next(after).filter(|first| *first <= until)?;
        if let Moments::Every(seconds) = self.moments {
            let times = (until.as_second() - first.as_second()) / seconds;
            return from_second(first.as_second() + times * seconds);
        }
        // Invariant: `last` is a moment that is not after `until`.
        let mut last = first;
        let mut span = until.as_second() - last.as_second();
        while span > 0 {
            let probe = last.checked_add(SignedDuration::from_secs(span)).ok()?;
            match self.next(probe).filter(|moment| *moment <= until) {
                // Something lies in the far part of the rest: go there, and look as far again.
                Some(moment) => {
                    last = moment;
                    span = span.min(until.as_second() - last.as_second());
                }
                None => span /= 2,
            }
        }
        self.next(last).filter(|moment| *moment <= until).or(Some(last))
    }
}

fn moments(text: &str) -> Result<Moments, Unparseable> {
    if let Some(descriptor) = text.strip_prefix('@') {
        return match descriptor.strip_prefix("every ") {
            Some(duration) => {
                let seconds = every::seconds(duration).ok_or_else(|| refused("not a duration", duration))?;
                Ok(Moments::Every(seconds))
            }
            None => moments(described(descriptor).ok_or_else(|| refused("unrecognized descriptor", text))?),
        };
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [minute, hour, month_day, month, week_day] = fields[..] else {
        return Err(Unparseable(format!("expected exactly 5 fields, found {}: {text:?}", fields.len())));
    };
    Ok(Moments::Matching(Fields {
        minute: Field::parse(minute, MINUTES)?,
        hour: Field::parse(hour, HOURS)?,
        month_day: Field::parse(month_day, MONTH_DAYS)?,
        month: Field::parse(month, MONTHS)?,
        week_day: Field::parse(week_day, WEEK_DAYS)?,
    }))
}

/// The fields that a descriptor stands for.
fn described(descriptor: &str) -> Option<&'static str> {
    match descriptor {
        "yearly" | "annually" => Some("0 0 1 1 *"),
        "monthly" => Some("0 0 1 * *"),
        "weekly" => Some("0 0 * * 0"),
        "daily" | "midnight" => Some("0 0 * * *"),
        "hourly" => Some("0 * * * *"),
        _ => None,
    }
}

/// Go's `time.LoadLocation`: nothing is UTC, and so is the local time of a process in a container.
fn inline_zone(name: &str) -> Option<TimeZone> {
    match name {
        "" | "Local" => Some(TimeZone::UTC),
        name => time_zone(name),
    }
}

fn refused(what: &str, text: &str) -> Unparseable {
    Unparseable(format!("{what}: {text:?}"))
}

/// The second that `time` lies in, also before 1970.
fn whole_second(time: Timestamp) -> Option<i64> {
    i64::try_from(time.as_nanosecond().div_euclid(1_000_000_000)).ok()
}

fn from_second(second: i64) -> Option<Timestamp> {
    Timestamp::from_second(second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// What robfig/cron v3 answers, for every line that `hack/cluster/golden/cron.go` printed.
    #[test]
    fn moments_are_robfigs() {
        let golden = include_str!("../../../tests/golden/cron.txt");
        let mut lines = 0;
        let mut differences = Vec::new();
        for line in golden.lines().filter(|line| !line.starts_with('#')) {
            let [spec, zone, start, answer] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line:?} has not four columns");
            };
            let ours = follow(&spec.replace("\\t", "\t"), zone, at(start));
            if ours != answer {
                differences.push(format!("{spec:?} in {zone} after {start}: {ours}, not {answer}"));
            }
            lines += 1;
        }
        assert!(differences.is_empty(), "{} of {lines}:\n{}", differences.len(), differences.join("\n"));
        assert!(lines > 500, "{lines}");
    }

    fn follow(spec: &str, zone: &str, start: Timestamp) -> String {
        let zone = time_zone(zone).unwrap_or_else(|| panic!("no zone {zone}"));
        let Ok(schedule) = Schedule::parse(spec, Some(&zone)) else { return "error".to_owned() };
        let mut moments = Vec::new();
        let mut last = start;
        for _ in 0..4 {
            let Some(next) = schedule.next(last) else {
                moments.push("never".to_owned());
                break;
            };
            moments.push(next.to_string());
            last = next;
        }
        moments.join(" ")
    }

    #[test]
    fn the_last_moment_is_exact_however_long_ago() {
        let now = at("2026-06-14T12:00:30.5Z");
        for (spec, after, last) in [
            ("* * * * *", "1999-01-01T00:00:00Z", "2026-06-14T12:00:00Z"),
            ("* * * * *", "2026-06-14T11:59:00Z", "2026-06-14T12:00:00Z"),
            // A dense hour a year ago, and nothing since: upstream's estimate loses it.
            ("* 3 1 7 *", "2020-01-01T00:00:00Z", "2025-07-01T03:59:00Z"),
            ("30 6-16/4 * * 1-5", "2026-06-12T00:00:00Z", "2026-06-12T14:30:00Z"),
            ("0 0 29 2 *", "2020-01-01T00:00:00Z", "2024-02-29T00:00:00Z"),
            ("@every 7h", "2026-06-13T00:00:00Z", "2026-06-14T11:00:00Z"),
        ] {
            let schedule = Schedule::parse(spec, None).unwrap();
            assert_eq!(schedule.last_between(at(after), now), Some(at(last)), "{spec}");
        }
        let hourly = Schedule::parse("@hourly", None).unwrap();
        assert_eq!(hourly.last_between(at("2026-06-14T12:00:00Z"), now), None);
    }

    /// Against the plain walk, for schedules without a pattern.
    #[test]
    fn the_last_moment_is_where_a_walk_ends() {
        let specs = [
            "*/7 3,9-11 * * *",
            "13 */5 */9 * 2",
            "0 0 1,15 * 3",
            "59 23 31 * *",
            "1 2 29 2 *",
            "*/59 * * * 0",
        ];
        for spec in specs {
            let schedule = Schedule::parse(spec, None).unwrap();
            for days in [1, 3, 40, 500] {
                let until = at("2027-03-09T05:06:07Z");
                let after = until - SignedDuration::from_hours(24 * days);
                let mut walked = None;
                let mut moment = schedule.next(after);
                while let Some(at) = moment.filter(|at| *at <= until) {
                    walked = Some(at);
                    moment = schedule.next(at);
                }
                assert_eq!(schedule.last_between(after, until), walked, "{spec} over {days} days");
            }
        }
    }

    #[test]
    fn what_never_comes_is_said_so() {
        let start = at("2026-01-01T00:00:00Z");
        for spec in ["30 2 31 2 *", "0 0 31 4,6,9,11 *", ", * * * *", "* * * * ,"] {
            assert_eq!(Schedule::parse(spec, None).unwrap().next(start), None, "{spec}");
        }
        // From the longest pause between leap years, robfig does not see the next one.
        let leap = Schedule::parse("0 0 29 2 *", None).unwrap();
        assert_eq!(leap.next(at("2096-03-01T00:00:00Z")), None);
        assert_eq!(leap.next(at("9999-01-01T00:00:00Z")), None, "and nothing breaks at the end of time");
    }

    #[test]
    fn a_zone_inside_the_schedule_comes_first() {
        let berlin = time_zone("Europe/Berlin").unwrap();
        let schedule = Schedule::parse("CRON_TZ=Asia/Tokyo 0 9 * * *", Some(&berlin)).unwrap();
        assert_eq!(schedule.next(at("2026-01-01T12:00:00Z")), Some(at("2026-01-02T00:00:00Z")));
        for spec in ["TZ=UTC", "TZ=0", "TZ=Nowhere/Land * * * * *", "TZ=UTC", "* * * * * TZ=UTC"] {
            assert!(Schedule::parse(spec, None).is_err(), "{spec}");
        }
    }
}
