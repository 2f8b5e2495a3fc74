//! One field of a schedule: `NUMBER`, `NAME`, `*`, `?`, `A-B`, each with `/STEP` or not, joined by commas.
//!
//! As lenient as robfig/cron v3 is, and no more: `5/10` is `5-59/10`, `*-3` is `*`, empty members of a list are
//! passed over, Sunday is 0 and never 7.

use super::Unparseable;

/// The values that match, as bits, and whether the field was left open (`*`, `?`), which matters for days.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Field {
    values: u64,
    pub(super) is_open: bool,
}

/// What values a field may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    least: i64,
    most: i64,
    /// The names of `least`, `least + 1`, ….
    names: &'static [&'static str],
}

pub(super) const MINUTES: Bounds = Bounds { least: 0, most: 59, names: &[] };
pub(super) const HOURS: Bounds = Bounds { least: 0, most: 23, names: &[] };
pub(super) const MONTH_DAYS: Bounds = Bounds { least: 1, most: 31, names: &[] };
pub(super) const MONTHS: Bounds = Bounds {
    least: 1,
    most: 12,
    names: &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
};
pub(super) const WEEK_DAYS: Bounds =
    Bounds { least: 0, most: 6, names: &["sun", "mon", "tue", "wed", "thu", "fri", "sat"] };

impl Field {
    pub(super) fn parse(text: &str, bounds: Bounds) -> Result<Self, Unparseable> {
        let members = text.split(',').filter(|member| !member.is_empty());
        members.map(|member| bounds.member(member)).try_fold(Self::default(), |all, one| {
            let one = one?;
            Ok(Self { values: all.values | one.values, is_open: all.is_open || one.is_open })
        })
    }

    pub(super) fn matches(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|bit| self.values.checked_shr(bit).is_some_and(|rest| rest & 1 == 1))
    }

    /// Nothing matches: a list of commas alone.
    pub(super) fn is_empty(self) -> bool {
        self.values == 0
    }
}

impl Bounds {
    fn member(self, member: &str) -> Result<Field, Unparseable> {
        let refused = |what: &str| Unparseable(format!("{what}: {member:?}"));
        let (range, step) = match member.split_once('/') {
            None => (member, None),
            Some((_, step)) if step.contains('/') => return Err(refused("too many slashes")),
            Some((range, step)) => (range, Some(number(step)?)),
        };
        let (low, high) = match range.split_once('-') {
            None => (range, None),
            Some((low, high)) => (low, Some(high)),
        };
        let is_open = matches!(low, "*" | "?");
        let (least, most) = match (is_open, high) {
            (true, _) => (self.least, self.most),
            (false, Some(high)) if high.contains('-') => return Err(refused("too many hyphens")),
            (false, Some(high)) => (self.value(low)?, self.value(high)?),
            (false, None) if step.is_some() => (self.value(low)?, self.most),
            (false, None) => (self.value(low)?, self.value(low)?),
        };
        let step = step.unwrap_or(1);
        if least < self.least {
            return Err(refused(&format!("{least} is below the minimum {}", self.least)));
        }
        if most > self.most {
            return Err(refused(&format!("{most} is above the maximum {}", self.most)));
        }
        if least > most {
            return Err(refused("the range ends before it begins"));
        }
        if step == 0 {
            return Err(refused("a step must be a positive number"));
        }
        let values = (least..=most).filter(|value| (value - least) % step == 0);
        let values = values.fold(0, |bits, value| bits | 1 << value);
        Ok(Field { values, is_open: is_open && step == 1 })
    }

    fn value(self, text: &str) -> Result<i64, Unparseable> {
        match self.names.iter().position(|name| name.eq_ignore_ascii_case(text)) {
            Some(place) => Ok(self.least + place as i64),
            None => number(text),
        }
    }
}

/// As Go's `strconv.Atoi`, without what is negative.
fn number(text: &str) -> Result<i64, Unparseable> {
    let number = text.parse().ok().filter(|number: &i64| *number >= 0);
    number.ok_or_else(|| Unparseable(format!("not a number: {text:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str, bounds: Bounds) -> Vec<i8> {
        let field = Field::parse(text, bounds).unwrap();
        (0..64).filter(|value| field.matches(*value)).collect()
    }

    #[test]
    fn lists_ranges_steps_and_names() {
        assert_eq!(values("5", MINUTES), [5]);
        assert_eq!(values("5/20", MINUTES), [5, 25, 45]);
        assert_eq!(values("1-7/3,30", MINUTES), [1, 4, 7, 30]);
        assert_eq!(values("mon-FRI/2", WEEK_DAYS), [1, 3, 5]);
        assert_eq!(values("Jan,dec", MONTHS), [1, 12]);
        assert_eq!(values("*/5", MONTHS), [1, 6, 11]);
        assert_eq!(values(",,+3,", HOURS), [3]);
        assert_eq!(values("*-2", HOURS).len(), 24);
    }

    #[test]
    fn only_a_plain_star_leaves_a_field_open() {
        for (text, is_open) in
            [("*", true), ("?", true), ("*/1", true), ("*/2", false), ("0-6", false), ("3,*", true)]
        {
            assert_eq!(Field::parse(text, WEEK_DAYS).unwrap().is_open, is_open, "{text}");
        }
    }

    #[test]
    fn what_robfig_refuses_is_refused() {
        for text in [
            "7",
            "-1",
            "1-",
            "",
            "1-2-3",
            "1/2/3",
            "*/0",
            "4-2",
            "x",
            "mon-",
            "1/",
            "*/x",
            "99999999999999999999",
        ] {
            let refused = Field::parse(text, WEEK_DAYS);
            assert_eq!(refused.is_err(), !text.is_empty(), "{text}: {refused:?}");
        }
        assert!(Field::parse("0", MONTH_DAYS).is_err());
        assert!(Field::parse("60", MINUTES).is_err());
    }
}
