//! `schedule`: the form of a cron line in the dialect of the native CronJob.

use serde_json::{Value, json};

use crate::{crd::CrdError, schema};

/// Bound that keeps the rules affordable. A line that names every minute and every hour is half as long.
const MAX_LENGTH: u32 = 1024;

const MACROS: &str = "yearly|annually|monthly|weekly|daily|midnight|hourly";

/// Durations as Go writes them: `1h30m`, `1.5h`.
const DURATION: &str = r"[+-]?(0|(([0-9]+([.][0-9]*)?|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)";

const MONTHS: &str = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec";
const WEEKDAYS: &str = "sun|mon|tue|wed|thu|fri|sat";

/// Rules of the field.
pub(super) fn rules(spec: &mut Value) -> Result<(), CrdError> {
    schema::insert(spec, "schedule", json!({"minLength": 1, "maxLength": MAX_LENGTH}))?;
    schema::validate(
        spec,
        "schedule",
        vec![
            schema::rule(
                "",
                "FieldValueInvalid",
                "!self.contains('TZ')",
                "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
            ),
            schema::rule(
                "",
                "FieldValueInvalid",
                &format!("self.contains('TZ') || self.matches('{}')", line()),
                "must be minute (0-59), hour (0-23), day (1-31), month (1-12 or JAN-DEC) and weekday (0-6 or SUN-SAT), \
                 or a macro such as @hourly",
            ),
        ],
    )
}

fn line() -> String {
    let fields = [
        field("[0-5]?[0-9]"),
        field("[01]?[0-9]|2[0-3]"),
        field("[1-9]|[12][0-9]|3[01]"),
        field(&format!("[1-9]|1[0-2]|(?i:{MONTHS})")),
        field(&format!("[0-6]|(?i:{WEEKDAYS})")),
    ];
    format!("^(@({MACROS})|@every {DURATION}|[ \\\\t]*{}[ \\\\t]*)$", fields.join("[ \\\\t]+"))
}

/// A list of values, ranges and steps.
fn field(value: &str) -> String {
    let value = format!("0*({value})");
    let term = format!("([*?](-[^ \\\\t,/]*)?|{value}(-{value})?)(/0*[1-9][0-9]*)?");
    format!(",*{term}(,+{term})*,*")
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::line;

    /// What the native server accepts and refuses.
    #[test]
    fn lines() {
        let line = Regex::new(&line().replace("\\\\t", "\\t")).unwrap();
        for good in [
            "* * * * *",
            "*/15 0-6,18-23/2 1,15 JAN-mar mon-fri",
            "? ? ? ? ?",
            "5/10 0 * * 0",
            "  0  0\t1 1 *  ",
            "007 08 09 012 06",
            "1,,2 * * * *",
            "30 2 31 2 *",
            "@hourly",
            "@every 1h30m",
            "@every 1.5h",
        ] {
            assert!(line.is_match(good), "{good}");
        }
        for bad in [
            "",
            "* * * *",
            "* * * * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * 32 * *",
            "* * * 13 *",
            "* * * * 7",
            "* * * * monday",
            "*/0 * * * *",
            "1-2-3 * * * *",
            "a * * * *",
            "-1 * * * *",
            "1/2/3 * * * *",
            "@reboot",
            "@every",
            "@every 5",
            " @hourly",
        ] {
            assert!(!line.is_match(bad), "{bad}");
        }
    }
}
