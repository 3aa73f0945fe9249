//! Settings and limits of a binding, held to what the plugin's manifest says.

use std::collections::BTreeMap;

use serde_json::Value;
use sluice_gate_types::input as gate;
use sluice_gate_types::limits::CallLimits;
use sluice_gate_types::manifest::Manifest;
use sluice_protocol::gates::{GateLimits, Setting, SettingValue};

use super::bind::BindError;
use crate::store::plugins::PluginRow;

/// The most bytes that a binding's settings may have as JSON.
pub(super) const LARGEST: usize = 8 << 10;

/// What an installed plugin says about itself.
pub(crate) fn manifest(plugin: &PluginRow) -> Result<Manifest, BindError> {
    serde_json::from_str(&plugin.manifest).map_err(|error| BindError::Manifest(error.to_string()))
}

/// The settings with defaults, or everything that is wrong with them.
pub(crate) fn checked(
    manifest: &Manifest,
    given: &BTreeMap<String, Value>,
) -> Result<Vec<Setting>, BindError> {
    let mut values = Vec::new();
    for (key, value) in given {
        values.push((
            key.clone(),
            from_json(value).ok_or_else(|| BindError::SettingType(key.clone()))?,
        ));
    }
    let settings = manifest.settings(&values).map_err(BindError::Settings)?;
    let settings: Vec<Setting> = settings
        .into_iter()
        .map(|attribute| {
            let value = match attribute.value {
                gate::Value::Boolean(value) => SettingValue::Boolean(value),
                gate::Value::Integer(value) => SettingValue::Integer(value),
                gate::Value::Decimal(value) => SettingValue::Decimal(value),
                gate::Value::Text(value) => SettingValue::Text(value),
                gate::Value::Texts(value) => SettingValue::Texts(value),
                gate::Value::Bytes(_) | gate::Value::Secret(_) => {
                    return Err(BindError::SettingType(attribute.key));
                }
            };
            Ok(Setting {
                key: attribute.key,
                value,
            })
        })
        .collect::<Result<_, _>>()?;
    if serde_json::to_vec(&settings).map_or(usize::MAX, |json| json.len()) > LARGEST {
        return Err(BindError::TooLarge);
    }
    Ok(settings)
}

/// Whether limits are no higher than what the plugin gets.
pub(super) fn check_limits(manifest: &Manifest, limits: &GateLimits) -> Result<(), BindError> {
    CallLimits::granted(&manifest.limits)
        .and_then(|own| own.within(&sluice_gate_client::call_limits(limits)))
        .map(|_| ())
        .map_err(BindError::Limits)
}

/// The value of a setting; none for what is none.
pub(crate) fn from_json(value: &Value) -> Option<gate::Value> {
    Some(match value {
        Value::Bool(value) => gate::Value::Boolean(*value),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => gate::Value::Integer(integer),
            None => gate::Value::Decimal(number.as_f64().filter(|number| number.is_finite())?),
        },
        Value::String(text) => gate::Value::Text(text.clone()),
        Value::Array(items) => gate::Value::Texts(
            items
                .iter()
                .map(|item| item.as_str().map(str::to_owned))
                .collect::<Option<_>>()?,
        ),
        Value::Null | Value::Object(_) => return None,
    })
}
