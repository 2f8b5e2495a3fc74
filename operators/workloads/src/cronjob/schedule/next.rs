//! The next moment whose fields match.
//!
//! Where clocks change, the answer depends on the path that a search takes, so this one takes robfig's: months, then
//! days, then hours, then minutes, each until it matches; after a carry into a larger unit, from the months again.
//! Hours and minutes are steps of elapsed time, months and days are steps on the calendar.

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};

use super::{Fields, from_second, whole_second};

/// robfig gives up when the year is larger than that of the start by more than this.
const YEARS: i16 = 5;

/// Beyond five years of days and the hours of a few. Only a zone that leaves out a whole calendar day could ask for
/// more: a step to that day ends where it began.
const STEPS: u32 = 20_000;

pub(super) fn next(fields: &Fields, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
    let Fields { minute, hour, month_day, month, week_day } = fields;
    if [minute, hour, month_day, month, week_day].iter().any(|field| field.is_empty()) {
        return None;
    }
    let mut at = Hand::new(zone, whole_second(after)?.checked_add(1)?)?;
    let last_year = at.local.year() + YEARS;
    // Until the first step, what is smaller than the step is still that of the start.
    let mut stepped = false;
    'carried: loop {
        if at.local.year() > last_year {
            return None;
        }
        while !month.matches(at.local.month()) {
            at.step(&mut stepped, Unit::Month)?;
            if at.local.month() == 1 {
                continue 'carried;
            }
        }
        while !fields.is_day(&at.local) {
            at.step(&mut stepped, Unit::Day)?;
            if at.local.day() == 1 {
                continue 'carried;
            }
        }
        while !hour.matches(at.local.hour()) {
            at.step(&mut stepped, Unit::Hour)?;
            if at.local.hour() == 0 {
                continue 'carried;
            }
        }
        while !minute.matches(at.local.minute()) {
            at.step(&mut stepped, Unit::Minute)?;
            if at.local.minute() == 0 {
                continue 'carried;
            }
        }
        if at.local.second() != 0 {
            stepped = true;
            at.go_to(at.unix + 60 - i64::from(at.local.second()))?;
            continue 'carried;
        }
        return from_second(at.unix);
    }
}

impl Fields {
    /// When both are restricted, either day is enough.
    fn is_day(&self, local: &DateTime) -> bool {
        let of_month = self.month_day.matches(local.day());
        let of_week = self.week_day.matches(local.weekday().to_sunday_zero_offset());
        if self.month_day.is_open || self.week_day.is_open {
            of_month && of_week
        } else {
            of_month || of_week
        }
    }
}

#[derive(Clone, Copy)]
enum Unit {
    Month,
    Day,
    Hour,
    Minute,
}

/// A point in time, and what clocks show then.
struct Hand<'a> {
    zone: &'a TimeZone,
    unix: i64,
    local: DateTime,
    steps: u32,
}

impl<'a> Hand<'a> {
    fn new(zone: &'a TimeZone, unix: i64) -> Option<Self> {
        let mut hand = Self { zone, unix, local: DateTime::default(), steps: 0 };
        hand.go_to(unix)?;
        Some(hand)
    }

    fn go_to(&mut self, unix: i64) -> Option<()> {
        let at = from_second(unix)?;
        self.unix = unix;
        self.local = self.zone.to_offset(at).to_datetime(at);
        Some(())
    }

    /// One unit ahead; the first step of all starts at the beginning of the unit.
    fn step(&mut self, stepped: &mut bool, unit: Unit) -> Option<()> {
        self.steps += 1;
        if self.steps > STEPS {
            return None;
        }
        if !std::mem::replace(stepped, true) {
            self.go_to_start(unit)?;
        }
        match unit {
            Unit::Month => self.go_to_date(1, 0),
            Unit::Day => {
                self.go_to_date(0, 1)?;
                // Midnight may not exist. Then the calendar step ends an hour beside it.
                match i64::from(self.local.hour()) {
                    0 => Some(()),
                    hour if hour > 12 => self.go_to(self.unix + (24 - hour) * 3600),
                    hour => self.go_to(self.unix - hour * 3600),
                }
            }
            Unit::Hour => self.go_to(self.unix + 3600),
            Unit::Minute => self.go_to(self.unix + 60),
        }
    }

    fn go_to_start(&mut self, unit: Unit) -> Option<()> {
        let midnight = self.local.date().to_datetime(jiff::civil::Time::midnight());
        self.local = match unit {
            Unit::Month => midnight.first_of_month(),
            Unit::Day => midnight,
            Unit::Hour => midnight.with().hour(self.local.hour()).build().ok()?,
            Unit::Minute => return self.go_to(self.unix - self.unix.rem_euclid(60)),
        };
        self.go_to_date(0, 0)
    }

    /// To the same time of day so many months and days on. A day beyond the end of its month runs over into the next,
    /// as Go's calendar has it.
    fn go_to_date(&mut self, months: i64, days: i64) -> Option<()> {
        let local = self.local;
        let months = i64::from(local.year()) * 12 + i64::from(local.month()) - 1 + months;
        let days = first_day(months) + i64::from(local.day()) - 1 + days;
        let seconds =
            i64::from(local.hour()) * 3600 + i64::from(local.minute()) * 60 + i64::from(local.second());
        let shown = days * 86_400 + seconds;
        // Go's choice where clocks change: the offset that holds at the moment that the offset at `shown` leads to.
        let offset = |unix| Some(i64::from(self.zone.to_offset(from_second(unix)?).seconds()));
        let guess = shown - offset(shown)?;
        let unix = shown - offset(guess)?;
        self.go_to(unix)
    }
}

/// Days from 1970-01-01 to the first of a month that is counted from January of year 0.
fn first_day(months: i64) -> i64 {
    // Years from March on, so that the leap day is the last.
    let months = months - 2;
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12));
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + (153 * month + 2) / 5 - 719_468
}

#[cfg(test)]
mod tests {
    use super::first_day;

    #[test]
    fn the_calendar_is_right() {
        for year in [1600, 1900, 1970, 1999, 2000, 2023, 2024, 2100, 9999] {
            for month in 1..=12 {
                let date = jiff::civil::date(year, month, 1);
                let days = date.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24;
                assert_eq!(first_day(i64::from(year) * 12 + i64::from(month) - 1), days, "{date}");
            }
        }
    }
}
