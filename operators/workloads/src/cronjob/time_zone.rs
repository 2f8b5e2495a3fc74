//! `spec.timeZone`: a name of the IANA database that this program carries in itself.
//!
//! The machine's own database is not looked at: two managers of one version must plan the same, and an image may have
//! none. A name may thus be known before an upgrade and not after it; such a CronJob does not run and says why.

use jiff::tz::{TimeZone, TimeZoneDatabase};

/// The zone of that name, with upper and lower case as the database has them.
pub(super) fn time_zone(name: &str) -> Option<TimeZone> {
    // jiff's word for "not known" is no zone of the database.
    let zone = TimeZoneDatabase::bundled().get(name).ok().filter(|zone| !zone.is_unknown())?;
    (zone.iana_name() == Some(name)).then_some(zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names come out of the binary: nothing here could read a file, and the answer is the same without any.
    #[test]
    fn zones_are_in_the_binary() {
        for name in [
            "UTC",
            "Etc/UTC",
            "Europe/Berlin",
            "America/New_York",
            "Asia/Kolkata",
            "US/Eastern",
            "Etc/GMT+12",
        ] {
            assert!(time_zone(name).is_some(), "{name}");
        }
        let zones = TimeZoneDatabase::bundled().available().count();
        assert!(zones > 400, "{zones}");
    }

    #[test]
    fn what_upstream_does_not_know_is_unknown() {
        for name in [
            "",
            "Local",
            "local",
            "europe/berlin",
            "utc",
            "Etc/Unknown",
            "../etc/passwd",
            "bad-time-zone",
            "CEST",
        ] {
            assert_eq!(time_zone(name), None, "{name}");
        }
    }
}
