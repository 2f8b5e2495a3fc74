//! JSON as Go's encoding/json writes a value that it has read into generic maps: sorted keys, characters that
//! HTML would mind escaped, every number a float.

use std::fmt::Write as _;

use serde_json::{Map, Number, Value};

/// The bytes.
pub(super) fn encode(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(true) => out.push_str("true"),
        Value::Bool(false) => out.push_str("false"),
        Value::Number(value) => number(value, out),
        Value::String(text) => string(text, out),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                separate(at, out);
                write(item, out);
            }
            out.push(']');
        }
        Value::Object(members) => object(members, out),
    }
}

fn object(members: &Map<String, Value>, out: &mut String) {
    let mut members: Vec<_> = members.iter().collect();
    // serde_json's map is sorted already, unless somebody turns on its feature to keep the order.
    members.sort_by_key(|(key, _)| *key);
    out.push('{');
    for (at, (key, value)) in members.into_iter().enumerate() {
        separate(at, out);
        string(key, out);
        out.push(':');
        write(value, out);
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
fn number(value: &Number, out: &mut String) {
    let float = value.as_f64().unwrap_or_default();
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{float:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let sign = if exponent.starts_with('-') { "" } else { "+" };
        // Writing to a String cannot fail.
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
        encode(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn strings_are_escaped_as_go_does() {
        let text = r#"["a<b>&&c","\"\\\/","\b\f\n\r\t\u0000\u001f\u007f","\u2028\u2029ü€😀"]"#;
        let wanted = "[\"a\\u003cb\\u003e\\u0026\\u0026c\",\"\\\"\\\\/\",\
            \"\\b\\f\\n\\r\\t\\u0000\\u001f\u{7f}\",\"\\u2028\\u2029ü€😀\"]";
        assert_eq!(encoded(text), wanted);
    }

    #[test]
    fn numbers_are_floats() {
        let text = "[0,-0.0,8080,-1,1.50,5000000000,9007199254740993,1e20,1e21,123e30,0.000001,1e-7,1.5e-10]";
        let wanted = "[0,-0,8080,-1,1.5,5000000000,9007199254740992,100000000000000000000,1e+21,1.23e+32,\
            0.000001,1e-7,1.5e-10]";
        assert_eq!(encoded(text), wanted);
    }

    #[test]
    fn keys_are_sorted_by_bytes() {
        assert_eq!(
            encoded(r#"{"b":{"z":[],"a":{}},"B":null,"$patch":true}"#),
            r#"{"$patch":true,"B":null,"b":{"a":{},"z":[]}}"#
        );
    }
}
