//! Evaluates the CEL rules of a schema on an object, as the API server does after the structural part held.

use std::{cell::RefCell, collections::HashMap, rc::Rc, sync::Arc};

use cel::{Context, Program, Value as Cel, extractors::This};
use serde_json::Value;

use crate::schema::child;

/// A rule that does not hold.
pub(crate) struct Violation {
    pub(crate) rule: String,
    /// Worded as the server words it.
    pub(crate) message: String,
}

/// Every rule that `value` violates, `old` being what is stored.
pub(crate) fn evaluate(
    value: &Value,
    old: Option<&Value>,
    schema: &Value,
    path: &str,
    violations: &mut Vec<Violation>,
) {
    if value.is_null() {
        return;
    }
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let text = rule["rule"].as_str().unwrap();
        if text.contains("oldSelf") && old.is_none() {
            continue;
        }
        if !holds(text, value, old) {
            let reason = match rule["reason"].as_str() {
                Some("FieldValueForbidden") => "Forbidden",
                Some("FieldValueRequired") => "Required value",
                _ => "Invalid value",
            };
            let field = rule["fieldPath"].as_str().unwrap_or_default();
            let path = format!("{path}{field}");
            // A rule of a plain value shows it.
            let shown = if value.is_string() { format!("{value}: ") } else { String::new() };
            let message = rule["message"].as_str().unwrap();
            let message = format!("{}: {reason}: {shown}{message}", path.trim_start_matches('.'));
            violations.push(Violation { rule: text.to_owned(), message });
        }
    }
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if let Some(inner) = child(schema, name) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    evaluate(field, old.and_then(|old| old.get(name)), inner, &path, violations);
                }
            }
        }
        // Transition rules below a list exist for keyed lists only, and ours have none.
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                evaluate(item, None, &schema["items"], &format!("{path}[{index}]"), violations);
            }
        }
        _ => {}
    }
}

/// An error counts as a violation, as on the server.
fn holds(rule: &str, value: &Value, old: Option<&Value>) -> bool {
    thread_local! {
        static PROGRAMS: RefCell<HashMap<String, Rc<Program>>> = RefCell::default();
    }
    let program = PROGRAMS.with_borrow_mut(|programs| {
        let compile = || Program::compile(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
        programs.entry(rule.to_owned()).or_insert_with(|| Rc::new(compile())).clone()
    });
    let mut context = Context::default();
    // Of the API server's own library.
    context.add_function("isSorted", |This(list): This<Arc<Vec<Cel>>>| list.is_sorted()).unwrap();
    context.add_variable_from_value("self", to_cel(value));
    if let Some(old) = old {
        context.add_variable_from_value("oldSelf", to_cel(old));
    }
    matches!(program.execute(&context), Ok(Cel::Bool(true)))
}

/// Integers become CEL's `int`; the library's own conversion makes unsigned ones of them, which the server never does.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::from(*value),
        Value::Number(number) => {
            number.as_i64().map_or_else(|| Cel::from(number.as_f64().unwrap()), Cel::from)
        }
        Value::String(text) => Cel::from(text.clone()),
        Value::Array(items) => Cel::from(items.iter().map(to_cel).collect::<Vec<_>>()),
        Value::Object(fields) => Cel::from(
            fields.iter().map(|(name, field)| (name.clone(), to_cel(field))).collect::<HashMap<_, _>>(),
        ),
    }
}
