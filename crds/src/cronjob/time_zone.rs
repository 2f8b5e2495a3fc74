//! `timeZone`: the form of a name of the tz database. A `LoadLocation` is the controller's.

use serde_json::{Value, json};

use crate::{crd::CrdError, schema};

/// Longest name. The longest of the database has 32 characters.
const MAX_LENGTH: u32 = 255;

/// Rules of the field: <https://data.iana.org/time-zones/theory.html#naming>, with the digits of legacy names.
pub(super) fn rules(spec: &mut Value) -> Result<(), CrdError> {
    const PART: &str = "[A-Za-z._0-9+][A-Za-z._0-9+-]{0,13}";
    schema::insert(spec, "timeZone", json!({"maxLength": MAX_LENGTH}))?;
    schema::validate(
        spec,
        "timeZone",
        vec![
            schema::rule(
                "",
                "FieldValueInvalid",
                &format!("self.matches('^{PART}(/{PART})*$') && !self.matches('(^|/)[.]{{1,2}}(/|$)')"),
                "unknown time zone: must be a name of the tz database such as Europe/Berlin",
            ),
            schema::rule(
                "",
                "FieldValueInvalid",
                "!self.matches('^[Ll][Oo][Cc][Aa][Ll]$')",
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            ),
        ],
    )
}
