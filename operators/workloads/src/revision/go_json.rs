//! JSON as Go's encoding/json writes a value that was read into generic maps: sorted keys, characters that HTML
//! would mind escaped, numbers as the reader took them.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// What Go's reader made of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbers {
    /// Floats, as encoding/json does: integers beyond 2⁵³ are rounded.
    Floats,
    /// 64-bit integers where they are, as apimachinery's util/json does.
    Integers,
}

/// The bytes.
pub(super) fn encode(value: &Value, numbers: Numbers) -> String {
    let mut out = String::new();
    write(value, numbers, &mut out);
    out
}

fn write(value: &Value, numbers: Numbers, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(value) => number(value, numbers, out),
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write(item, numbers, out);
            }
            out.push(']');
        }
        Value::Object(members) => object(members, numbers, out),
    }
}

fn object(members: &Map<String, Value>, numbers: Numbers, out: &mut String) {
    let mut members: Vec<_> = members.iter().collect();
    // serde_json's map is sorted already, unless somebody turns on its feature to keep the order.
    members.sort_by_key(|(key, _)| *key);
    out.push('{');
    for (at, (key, value)) in members.into_iter().enumerate() {
        separate(at, out);
        string(key, out);
        out.push(':');
        write(value, numbers, out);
    }
    out.push('}');
}

fn separate(at: usize, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
}

/// Go's `floatEncoder`: like ES6, the shortest text that reads back the same; an exponent only for the very large
/// and the very small.
fn number(value: &Number, numbers: Numbers, out: &mut String) {
    if let (Some(integer), Numbers::Integers) = (value.as_i64(), numbers) {
        // Writing to a String cannot fail.
        let _ = write!(out, "{integer}");
        return;
    }
    let float = value.as_f64().unwrap_or_default();
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        let _ = write!(out, "{mantissa}e{sign}{exponent}");
    } else {
        let _ = write!(out, "{float}");
    }
}

/// Go's `appendString` with `escapeHTML`.
fn string(text: &str, out: &mut String) {
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(char));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(json: &str) -> String {
        encode(&serde_json::from_str(json).unwrap(), Numbers::Floats)
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = r#"["a<b>&&c","\"\\\/","\b\f\n\r\t\u0000\u001f\u007f","\u2028\u2029ü€😀"]"#;
        let wanted = "[\"a\\u003cb\\u003e\\u0026\\u0026c\",\"\\\"\\\\/\",\
            \"\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}\",\"\\u2028\\u2029ü€😀\"]";
        assert_eq!(encoded(text), wanted);
    }

    #[test]
    fn numbers_are_what_the_reader_made_of_them() {
        let text = "[0,-0.0,8080,-1,1.50,5000000000,9007199254740993,1e20,1e21,123e30,0.000001,1e-7,1.5e-10]";
        let wanted = "[0,-0,8080,-1,1.5,5000000000,9007199254740992,100000000000000000000,1e+21,1.23e+32,\
            0.000001,1e-7,1.5e-10]";
        assert_eq!(encoded(text), wanted);
        let text = "[9007199254740993,-9223372036854775808,18446744073709551615,3.0]";
        let wanted = "[9007199254740993,-9223372036854775808,18446744073709552000,3]";
        assert_eq!(encode(&serde_json::from_str(text).unwrap(), Numbers::Integers), wanted);
    }

    #[test]
    fn keys_are_sorted_by_bytes() {
        assert_eq!(
            encoded(r#"{"b":{"z":[],"a":{}},"B":null,"$patch":true}"#),
            r#"{"$patch":true,"B":null,"b":{"a":{},"z":[]}}"#
        );
    }
}
