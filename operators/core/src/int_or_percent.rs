//! `intstr.IntOrString` as it is used for surge and unavailability: a count or a percentage.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A count, or a percentage of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IntOrPercent {
    /// An absolute number.
    Int(i32),
    /// `"25%"`.
    Percent(i32),
}

impl IntOrPercent {
    /// The count out of `total`, rounding fractions up (upstream: surge).
    pub fn of_rounding_up(self, total: i32) -> i32 {
        self.of(total, 99)
    }

    /// The count out of `total`, rounding fractions down (upstream: unavailability).
    pub fn of_rounding_down(self, total: i32) -> i32 {
        self.of(total, 0)
    }

    fn of(self, total: i32, round: i64) -> i32 {
        match self {
            IntOrPercent::Int(count) => count,
            IntOrPercent::Percent(percent) => {
                let share = (i64::from(total) * i64::from(percent) + round).div_euclid(100);
                share.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32
            }
        }
    }
}

impl fmt::Display for IntOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IntOrPercent::Int(count) => write!(f, "{count}"),
            IntOrPercent::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

impl Serialize for IntOrPercent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            IntOrPercent::Int(count) => serializer.serialize_i32(*count),
            IntOrPercent::Percent(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrPercent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = IntOrPercent;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number or a percentage such as \"25%\"")
            }

            fn visit_i64<E: de::Error>(self, count: i64) -> Result<IntOrPercent, E> {
                i32::try_from(count).map(IntOrPercent::Int).map_err(|_| E::custom("number out of range"))
            }

            fn visit_u64<E: de::Error>(self, count: u64) -> Result<IntOrPercent, E> {
                i32::try_from(count).map(IntOrPercent::Int).map_err(|_| E::custom("number out of range"))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<IntOrPercent, E> {
                let number = text.strip_suffix('%').and_then(|number| number.parse().ok());
                number
                    .map(IntOrPercent::Percent)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_round_as_upstream_rounds_them() {
        // (percent, total, up, down); 0 and 1 are the rows that go wrong.
        for (percent, total, up, down) in [
            (25, 10, 3, 2),
            (25, 0, 0, 0),
            (25, 1, 1, 0),
            (100, 3, 3, 3),
            (1, 1, 1, 0),
            (200, i32::MAX, i32::MAX, i32::MAX),
        ] {
            let share = IntOrPercent::Percent(percent);
            assert_eq!(
                (share.of_rounding_up(total), share.of_rounding_down(total)),
                (up, down),
                "{share} of {total}"
            );
        }
        assert_eq!(IntOrPercent::Int(4).of_rounding_up(1), 4);
    }

    #[test]
    fn both_spellings_round_trip() {
        for text in ["3", "\"25%\""] {
            let value: IntOrPercent = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&value).unwrap(), text);
        }
        for bad in ["\"25\"", "\"%\"", "true", "99999999999"] {
            assert!(serde_json::from_str::<IntOrPercent>(bad).is_err(), "{bad}");
        }
    }
}
