//! Checks JSON against as much of JSON Schema as our own schemas use.

use serde_json::Value;

/// Says where `value` is not what `schema` (a part of `root`) wants.
pub fn check(root: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{place}: {what}: {value}"));
    if let Some(name) = schema["$ref"].as_str().and_then(|reference| reference.strip_prefix("#/$defs/")) {
        return check(root, &root["$defs"][name], value, place);
    }
    if let Some(kinds) = schema.get("type") {
        let kinds: Vec<&str> = match kinds {
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        if !kinds.iter().any(|kind| is(value, kind)) {
            return wrong(&format!("is not of type {kinds:?}"));
        }
    }
    if schema.get("const").is_some_and(|only| only != value) {
        return wrong("is not the one value");
    }
    if schema["enum"].as_array().is_some_and(|list| !list.contains(value)) {
        return wrong("is none of the values");
    }
    if schema["minimum"].as_i64().is_some_and(|least| value.as_i64().is_some_and(|have| have < least)) {
        return wrong("is too small");
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fit = choices.iter().filter(|choice| check(root, choice, value, place).is_ok()).count();
        if fit != 1 {
            return wrong(&format!("fits {fit} of the forms"));
        }
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.is_object() && value.get(key).is_none() {
            return wrong(&format!("lacks {key}"));
        }
    }
    for (key, inner) in value.as_object().into_iter().flatten() {
        match schema["properties"].get(key) {
            Some(wanted) => check(root, wanted, inner, &format!("{place}.{key}"))?,
            None if schema["additionalProperties"] == false => return wrong(&format!("has {key}")),
            None => {}
        }
    }
    if let (Some(wanted), Some(items)) = (schema.get("items"), value.as_array()) {
        for (number, item) in items.iter().enumerate() {
            check(root, wanted, item, &format!("{place}[{number}]"))?;
        }
    }
    Ok(())
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}
