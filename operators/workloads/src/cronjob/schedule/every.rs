//! `@every DURATION`, the duration as Go writes it: `1h30m`, `1.5h`, `90s`.

const SECOND: i128 = 1_000_000_000;

/// The duration in whole seconds, at least one; `None` when it is none.
pub(super) fn seconds(text: &str) -> Option<i64> {
    let nanoseconds = nanoseconds(text)?;
    let whole = i64::try_from(nanoseconds / SECOND).ok()?;
    // Go's durations end here.
    (nanoseconds.abs() <= i128::from(i64::MAX)).then_some(whole.max(1))
}

fn nanoseconds(text: &str) -> Option<i128> {
    let (sign, mut rest) = match text.as_bytes().first()? {
        b'-' => (-1, &text[1..]),
        b'+' => (1, &text[1..]),
        _ => (1, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let end = after.find(|letter: char| letter == '.' || letter.is_ascii_digit()).unwrap_or(after.len());
        let unit = unit(&after[..end])?;
        rest = &after[end..];
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // Eighteen digits are more than any unit has nanoseconds for.
        let fraction = &fraction[..fraction.len().min(18)];
        let parts: i128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let added = whole.checked_mul(unit)? + parts * unit / 10i128.pow(fraction.len() as u32);
        total = total.checked_add(added)?;
    }
    Some(sign * total)
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()))
}

fn unit(name: &str) -> Option<i128> {
    match name {
        "ns" => Some(1),
        // The micro sign and the Greek letter.
        "us" | "\u{b5}s" | "\u{3bc}s" => Some(1_000),
        "ms" => Some(1_000_000),
        "s" => Some(SECOND),
        "m" => Some(60 * SECOND),
        "h" => Some(3600 * SECOND),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn durations_are_gos() {
        for (text, expected) in [
            ("1h30m", Some(5400)),
            ("1.5h", Some(5400)),
            (".5m", Some(30)),
            ("90s", Some(90)),
            ("1500ms", Some(1)),
            ("10ns", Some(1)),
            ("2\u{b5}s", Some(1)),
            ("-5m", Some(1)),
            ("+5m", Some(300)),
            ("0", Some(1)),
            ("5", None),
            ("", None),
            ("-", None),
            ("h", None),
            (".s", None),
            ("1d", None),
            ("1h 30m", None),
            ("2562047h", Some(9_223_369_200)),
            ("2562048h", None),
            ("99999999999999999999999999999999999999999h", None),
        ] {
            assert_eq!(seconds(text), expected, "{text:?}");
        }
    }
}
