//! The effective configuration as TOML that could be given back, with secrets masked.

use std::fmt::Write;

use super::SECRETS;
use super::layers::{Origin, Setting, Settings};
use super::secret::mask;

/// Every key with its value; what is not the default says where it came from.
pub fn show(settings: &Settings) -> String {
    let mut text = String::new();
    let mut table = "";
    for setting in settings.iter() {
        if let Some(own) = setting.value.as_table() {
            let _ = write!(text, "\n[{}]{}\n{own}", setting.key, origin(setting));
            continue;
        }
        let (prefix, name) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        if prefix != table {
            let _ = write!(text, "\n[{prefix}]\n");
            table = prefix;
        }
        let value = match setting.value.as_str() {
            Some(secret) if SECRETS.contains(&setting.key.as_str()) => toml::Value::String(mask(secret)),
            _ => setting.value.clone(),
        };
        let _ = writeln!(text, "{name} = {value}{}", origin(setting));
    }
    text
}

/// A comment that says where the value came from, unless it is the default.
fn origin(setting: &Setting) -> String {
    if setting.origin == Origin::Default {
        return String::new();
    }
    format!("  # {}", setting.origin.to_string().replace(char::is_control, "?"))
}
