//! The effective configuration as TOML that could be given back, with secrets masked.

use std::fmt::Write;

use super::SECRETS;
use super::layers::{Origin, Settings};
use super::secret::mask;

/// Every key with its value; what is not the default says where it came from.
pub fn show(settings: &Settings) -> String {
    let mut text = String::new();
    let mut table = "";
    for setting in settings.iter() {
        let (prefix, name) = setting.key.split_once('.').unwrap_or(("", &setting.key));
        if prefix != table {
            let _ = write!(text, "\n[{prefix}]\n");
            table = prefix;
        }
        let value = match setting.value.as_str() {
            Some(secret) if SECRETS.contains(&setting.key.as_str()) => toml::Value::String(mask(secret)),
            _ => setting.value.clone(),
        };
        let _ = write!(text, "{name} = {value}");
        if setting.origin != Origin::Default {
            let _ = write!(
                text,
                "  # {}",
                setting.origin.to_string().replace(char::is_control, "?")
            );
        }
        text.push('\n');
    }
    text
}
