//! Fields that hold a number of pods or a percentage of them: rules of the object that holds such a field.

use serde_json::{Value, json};

use super::rule;

/// Keywords of such a field. The bound is there for the cost of the rules.
pub(crate) fn int_or_percent_bound() -> Value {
    json!({"maxLength": 16})
}

/// The field `field` is not negative and, if a string, a percentage.
pub(crate) fn int_or_percent(field: &str) -> Value {
    rule(
        field,
        "FieldValueInvalid",
        &format!(
            "!has(self.{field}) || (type(self.{field}) == int ? int(self.{field}) >= 0 \
             : string(self.{field}).matches('^[0-9]+%$'))"
        ),
        "must be a non-negative integer or a percentage (e.g. 5 or '10%')",
    )
}

/// The field `field` is not a percentage above 100.
pub(crate) fn at_most_all(field: &str) -> Value {
    rule(
        field,
        "FieldValueInvalid",
        &format!(
            "!has(self.{field}) || type(self.{field}) == int \
             || !string(self.{field}).matches('^[0-9]+%$') \
             || string(self.{field}).matches('^0*(100|[0-9]{{1,2}})%$')"
        ),
        "must not be greater than 100%",
    )
}

/// An expression: the field `field` is there and is 0 or 0 %.
pub(crate) fn is_zero(field: &str) -> String {
    format!(
        "has(self.{field}) && (type(self.{field}) == int ? int(self.{field}) == 0 \
         : string(self.{field}).matches('^0+%$'))"
    )
}
