//! A JSON Schema (draft 7), as far as the schema of SARIF uses it. A keyword that is not known here fails the test: what
//! is not understood is not passed over.

use std::collections::HashSet;

use regex_lite::Regex;
use serde_json::{Map, Value};

/// Everything in `value` that the schema forbids.
pub(crate) fn problems(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "$", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let empty = Map::new();
    let schema = schema.as_object().expect("a schema is an object");
    let object = value.as_object();
    let properties = schema
        .get("properties")
        .map_or(&empty, |is| is.as_object().expect("is an object"));
    for (keyword, is) in schema {
        let wrong = match keyword.as_str() {
            "$schema" | "$id" | "title" | "description" | "default" | "definitions" => false,
            "$ref" => {
                let pointer = is.as_str().expect("is a text").trim_start_matches('#');
                let target = root.pointer(pointer).expect("is in the schema");
                check(root, target, value, at, found);
                false
            }
            "type" => {
                let types = is.as_array().cloned().unwrap_or_else(|| vec![is.clone()]);
                !types
                    .iter()
                    .any(|name| is_of(value, name.as_str().expect("is a text")))
            }
            "enum" => !is.as_array().expect("is a list").contains(value),
            "pattern" => {
                let pattern = Regex::new(is.as_str().expect("is a text")).expect("is a pattern");
                value.as_str().is_some_and(|text| !pattern.is_match(text))
            }
            "format" => value
                .as_str()
                .is_some_and(|text| !has_format(text, is.as_str())),
            "minimum" => value
                .as_f64()
                .is_some_and(|number| number < is.as_f64().expect("is a number")),
            "maximum" => value
                .as_f64()
                .is_some_and(|number| number > is.as_f64().expect("is a number")),
            "minItems" => value
                .as_array()
                .is_some_and(|items| (items.len() as u64) < is.as_u64().expect("is a number")),
            "uniqueItems" => value.as_array().is_some_and(|items| {
                let texts: HashSet<String> = items.iter().map(Value::to_string).collect();
                texts.len() != items.len()
            }),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, is, item, &format!("{at}[{index}]"), found);
                }
                false
            }
            "required" => object.is_some_and(|object| {
                let names = is.as_array().expect("is a list").iter();
                names
                    .map(|name| name.as_str().expect("is a text"))
                    .any(|name| !object.contains_key(name))
            }),
            "properties" => {
                for (name, item) in object.into_iter().flatten() {
                    if let Some(schema) = properties.get(name) {
                        check(root, schema, item, &format!("{at}.{name}"), found);
                    }
                }
                false
            }
            "additionalProperties" => {
                let others = object
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| !properties.contains_key(*name));
                match is {
                    Value::Bool(allowed) => !allowed && others.count() > 0,
                    schema => {
                        for (name, item) in others {
                            check(root, schema, item, &format!("{at}.{name}"), found);
                        }
                        false
                    }
                }
            }
            "anyOf" | "oneOf" => {
                let schemas = is.as_array().expect("is a list").iter();
                let fitting = schemas.filter(|schema| {
                    let mut inner = Vec::new();
                    check(root, schema, value, at, &mut inner);
                    inner.is_empty()
                });
                let count = fitting.count();
                count == 0 || (keyword == "oneOf" && count > 1)
            }
            other => panic!("the keyword {other} is not known"),
        };
        if wrong {
            found.push(format!("{at}: {keyword} {is}: {value}"));
        }
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("the type {other} is not known"),
    }
}

fn has_format(text: &str, format: Option<&str>) -> bool {
    let characters = text
        .chars()
        .all(|c| c.is_ascii_graphic() && !"<>\"{}|\\^`".contains(c));
    match format {
        Some("uri") => characters && text.contains(':'),
        Some("uri-reference") => characters,
        Some("date-time") => text.parse::<jiff::Timestamp>().is_ok(),
        other => panic!("the format {other:?} is not known"),
    }
}
