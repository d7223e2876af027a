//! An export in JSON. It is written as it is read from storage, piece by piece, so no type holds the whole of it.

use std::collections::BTreeMap;

use base64::Engine;
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::encoding::BASE64;
use crate::storage::export::{Cell, Shown, TABLES, Table};

use super::forms::{DeviceIdNumber, NumberText, UuidText};

/// The shape of the answer of `GET /v1/accounts/export`.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExportOut {
    /// The account's ACI.
    #[schemars(with = "UuidText")]
    pub account: String,
    /// Its phone number, opened with the caller's password.
    #[schemars(with = "NumberText")]
    pub number: String,
    /// The account's rows of each table, with their columns: bytes in base64, days from 1970, times in milliseconds.
    pub tables: BTreeMap<String, Vec<BTreeMap<String, serde_json::Value>>>,
    /// Columns of which less is shown than is stored, by `table.column`: what is shown, and why not more.
    pub abridged: BTreeMap<String, String>,
    /// What the node that answers has in memory.
    pub memory: MemoryOut,
    /// What is held and cannot be found from the account.
    pub not_findable: Vec<String>,
}

/// What one node has in memory of an account.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MemoryOut {
    /// The account's own row and its devices', for seconds.
    pub account_remembered: bool,
    /// Uploads that write now.
    pub uploads: usize,
    /// By device.
    pub devices: Vec<DeviceMemoryOut>,
}

/// What one node has in memory of a device.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceMemoryOut {
    /// Which.
    #[schemars(with = "DeviceIdNumber")]
    pub device_id: u8,
    /// It has a connection here by which it gets envelopes.
    pub connected: bool,
    /// It waits here for a device to be linked.
    pub waits: bool,
}

/// A row as an object, with its columns in their order.
pub struct RowOut<'a> {
    /// Whose row.
    pub table: &'static Table,
    /// A cell for each column.
    pub cells: &'a [Cell],
}

impl Serialize for RowOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut row = serializer.serialize_map(Some(self.cells.len()))?;
        for (column, cell) in self.table.columns.iter().zip(self.cells) {
            row.serialize_key(column.name)?;
            match cell {
                Cell::Nothing => row.serialize_value(&())?,
                Cell::Bool(value) => row.serialize_value(value)?,
                Cell::Number(value) => row.serialize_value(value)?,
                Cell::Text(value) => row.serialize_value(value)?,
                Cell::Bytes(value) => row.serialize_value(&BASE64.encode(value))?,
                Cell::Id(value) => row.serialize_value(&value.as_hyphenated().to_string())?,
            }
        }
        row.end()
    }
}

/// Columns of which less is shown than is stored.
pub fn abridged() -> BTreeMap<String, String> {
    let mut abridged = BTreeMap::new();
    for table in TABLES {
        for column in table.columns {
            let said = match column.shown {
                Shown::Whole => continue,
                Shown::Held(why) => format!("whether there is a value: {why}"),
                Shown::Length(why) => format!("how many bytes it has: {why}"),
            };
            abridged.insert(format!("{}.{}", table.name, column.name), said);
        }
    }
    abridged
}

/// What is held and cannot be found from the account.
pub const NOT_FINDABLE: [&str; 4] = [
    "attachments other than pictures of the profile: nothing says whose they are",
    "how often it took the keys of others, or others took its own: counted in memory, by hashes that name nobody, for an \
     hour at most",
    "how much of a queue came from it, or of its own queues from others: counted in memory, by hashes that name nobody, for a \
     day after the last message",
    "messages that are under way in the memory of a node, for seconds",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::export;

    #[test]
    fn a_row_is_an_object_whose_text_needs_no_escapes() {
        let cells = [
            Cell::Id(uuid::Uuid::from_bytes([0xab; 16])),
            Cell::Bytes(vec![0xfb, 0xff]),
            Cell::Nothing,
        ];
        let row = RowOut {
            table: &export::USERNAME_LINKS,
            cells: &cells,
        };
        assert_eq!(
            serde_json::to_string(&row).unwrap(),
            r#"{"handle":"abababab-abab-abab-abab-abababababab","aci":"+/8=","encrypted":null}"#
        );
    }

    #[test]
    fn what_could_be_guessed_with_is_not_shown() {
        let abridged = abridged();
        for column in [
            "accounts.lock_hash",
            "accounts.lock_salt",
            "accounts.recovery_hash",
            "accounts.recovery_salt",
            "devices.credential_hash",
            "devices.credential_salt",
            "devices.sealed_number",
            "link_offers.sealed_number",
            "mailboxes.interim_key",
            "verification_sessions.code_hash",
            "verification_sessions.sealed_number",
        ] {
            assert!(abridged[column].starts_with("whether"), "{column}");
        }
        assert!(abridged["envelopes.sealed"].starts_with("how many"));
        assert!(abridged["accounts.blocks"].starts_with("how many"));
        assert_eq!(abridged.len(), 13);
    }
}
