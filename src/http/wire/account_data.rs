//! Account data in JSON.

use axum::http::StatusCode;
use base64::Engine;
use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{DataChange, DataCursor, DataEntry, DataKey, DataPage, DataWrite, Revision};
use crate::encoding::BASE64_URL;
use crate::http::error::ApiError;

use super::base64_bytes::{Base64Bytes, padded};
use super::forms::{Base64Text, DataCursorText, DataKeyText, DataVersionNumber};

/// The query of `GET /v1/data`.
#[derive(Deserialize, JsonSchema)]
pub struct ChangesQuery {
    #[serde(default)]
    #[schemars(with = "Option<DataCursorText>")]
    after: Option<String>,
}

impl ChangesQuery {
    /// From where to list.
    pub fn cursor(&self) -> Result<DataCursor, ApiError> {
        let Some(text) = &self.after else {
            return Ok(DataCursor::default());
        };
        let (after, since) = text.split_once('.').unwrap_or((text, text));
        match (parse_revision(after), parse_revision(since)) {
            (Some(after), Some(since)) => Ok(DataCursor { after, since }),
            _ => Err(ApiError::unprocessable(
                "after",
                "give the revision or the `next` of an earlier answer",
            )),
        }
    }
}

/// The query of `DELETE /v1/data/{key}`.
#[derive(Deserialize, JsonSchema)]
pub struct DeletionQuery {
    /// The version that is to be deleted.
    #[schemars(with = "DataVersionNumber")]
    version: String,
}

impl DeletionQuery {
    /// The version.
    pub fn version(&self) -> Result<Revision, ApiError> {
        parse_revision(&self.version)
            .filter(|version| version.0 > 0)
            .ok_or(BAD_VERSION)
    }
}

/// The body of `PUT /v1/data/{key}`.
#[derive(Deserialize, JsonSchema)]
pub struct DataIn {
    /// The version that is to be replaced, 0 for none.
    #[schemars(with = "DataVersionNumber")]
    version: i64,
    #[schemars(with = "Base64Text")]
    value: Base64Bytes,
}

impl DataIn {
    /// The write.
    pub fn write(self, key: DataKey, max_value: usize) -> Result<DataWrite, ApiError> {
        Ok(DataWrite {
            key,
            expected: revision(self.version)?,
            value: Some(value(self.value, max_value)?),
        })
    }
}

/// The body of `POST /v1/data/batch`.
#[derive(Deserialize, JsonSchema)]
pub struct BatchIn {
    #[schemars(length(min = 1, max = 50))]
    operations: Vec<OperationIn>,
}

#[derive(Deserialize, JsonSchema)]
struct OperationIn {
    #[schemars(with = "DataKeyText")]
    key: String,
    #[schemars(with = "DataVersionNumber")]
    version: i64,
    #[serde(default)]
    #[schemars(with = "Option<Base64Text>")]
    value: Option<Base64Bytes>,
    #[serde(default)]
    delete: Option<bool>,
}

impl BatchIn {
    /// The writes, each of another entry.
    pub fn writes(self, max_value: usize) -> Result<Vec<DataWrite>, ApiError> {
        if !(1..=MAX_OPERATIONS).contains(&self.operations.len()) {
            return Err(ApiError::unprocessable(
                "operation_count",
                "a batch has at least one and at most 50 operations",
            ));
        }
        let writes = self.operations.into_iter().map(|operation| operation.write(max_value));
        let writes: Vec<_> = writes.collect::<Result<_, _>>()?;
        let mut keys: Vec<_> = writes.iter().map(|write| write.key).collect();
        keys.sort_unstable();
        keys.dedup();
        if keys.len() < writes.len() {
            return Err(ApiError::unprocessable(
                "duplicate_data_key",
                "two operations of a batch are on the same key",
            ));
        }
        Ok(writes)
    }
}

impl OperationIn {
    fn write(self, max_value: usize) -> Result<DataWrite, ApiError> {
        let (key, expected) = (parse_key(&self.key)?, revision(self.version)?);
        // A value that was forgotten must not delete.
        let value = match (self.value, self.delete.unwrap_or(false)) {
            (Some(bytes), false) => Some(value(bytes, max_value)?),
            (None, true) if expected.0 > 0 => None,
            (None, true) => return Err(BAD_VERSION),
            _ => {
                return Err(ApiError::unprocessable(
                    "operation",
                    "an operation has either a value or `delete`",
                ));
            }
        };
        Ok(DataWrite { key, expected, value })
    }
}

/// The answer of `GET /v1/data/{key}`.
#[derive(Serialize, JsonSchema)]
pub struct DataOut {
    #[schemars(with = "DataVersionNumber")]
    version: i64,
    #[serde(serialize_with = "padded")]
    #[schemars(with = "Base64Text")]
    value: Vec<u8>,
}

impl From<DataEntry> for DataOut {
    fn from(entry: DataEntry) -> Self {
        Self {
            version: entry.version.0,
            value: entry.value.into(),
        }
    }
}

/// A version: the new one after a write, the one that is there after a conflict.
#[derive(Serialize, JsonSchema)]
pub struct DataVersionOut {
    /// 0 if there is no such entry.
    #[schemars(with = "DataVersionNumber")]
    pub version: i64,
}

/// The answer to a batch.
#[derive(Serialize, JsonSchema)]
pub struct BatchOut {
    /// The account's revision, which is the last of the versions.
    #[schemars(with = "DataVersionNumber")]
    pub revision: i64,
    /// One for each operation.
    #[schemars(with = "Vec<DataVersionNumber>")]
    pub versions: Vec<i64>,
}

/// 409 to a batch.
#[derive(Serialize, JsonSchema)]
pub struct BatchConflictOut {
    conflicts: Vec<ConflictOut>,
}

#[derive(Serialize, JsonSchema)]
struct ConflictOut {
    #[schemars(with = "DataKeyText")]
    key: String,
    #[schemars(with = "DataVersionNumber")]
    version: i64,
}

impl BatchConflictOut {
    /// The entries that have other versions than the batch expects.
    pub fn new(conflicts: &[(DataKey, Revision)]) -> Self {
        let conflict = |(key, version): &(DataKey, Revision)| ConflictOut {
            key: key_text(key),
            version: version.0,
        };
        Self {
            conflicts: conflicts.iter().map(conflict).collect(),
        }
    }
}

/// The answer of `GET /v1/data`.
#[derive(Serialize, JsonSchema)]
pub struct ChangesOut {
    #[schemars(with = "DataVersionNumber")]
    revision: i64,
    reset: bool,
    entries: Vec<ChangeOut>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<DataCursorText>")]
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct ChangeOut {
    #[schemars(with = "DataKeyText")]
    key: String,
    #[schemars(with = "DataVersionNumber")]
    version: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u32>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    deleted: bool,
}

impl From<DataPage> for ChangesOut {
    fn from(page: DataPage) -> Self {
        Self {
            revision: page.revision.0,
            reset: page.reset,
            entries: page.changes.iter().map(ChangeOut::from).collect(),
            next: page.next.map(|next| format!("{}.{}", next.after.0, next.since.0)),
        }
    }
}

impl From<&DataChange> for ChangeOut {
    fn from(change: &DataChange) -> Self {
        Self {
            key: key_text(&change.key),
            version: change.version.0,
            size: change.size,
            deleted: change.size.is_none(),
        }
    }
}

/// A key in a path or a batch: one text per key, so that nobody can name an entry in two ways.
pub fn parse_key(text: &str) -> Result<DataKey, ApiError> {
    let bytes = BASE64_URL.decode(text).ok().filter(|_| text.len() == KEY_CHARS);
    let key = bytes.and_then(|bytes| bytes.try_into().ok());
    key.map(DataKey).ok_or(ApiError::unprocessable(
        "data_key",
        "a key has 32 bytes in URL-safe base64 without padding",
    ))
}

fn key_text(key: &DataKey) -> String {
    BASE64_URL.encode(key.0)
}

fn revision(number: i64) -> Result<Revision, ApiError> {
    if number < 0 {
        return Err(BAD_VERSION);
    }
    Ok(Revision(number))
}

/// Digits alone.
fn parse_revision(text: &str) -> Option<Revision> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().map(Revision)
}

fn value(Base64Bytes(bytes): Base64Bytes, max: usize) -> Result<Bytes, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::unprocessable(
            "empty_value",
            "a value has at least one byte; delete the entry instead",
        ));
    }
    if bytes.len() > max {
        return Err(ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "value_too_large",
            "a value is larger than this server keeps; split it",
        ));
    }
    Ok(bytes.into())
}

const BAD_VERSION: ApiError =
    ApiError::unprocessable("data_version", "versions are whole numbers; a deletion names one");
const KEY_CHARS: usize = 43;
const MAX_OPERATIONS: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_text() {
        let key = DataKey([0xfb; 32]);
        let text = key_text(&key);
        assert_eq!(parse_key(&text).unwrap(), key);
        let standard = text.replace('-', "+").replace('_', "/");
        let (padded, longer) = (format!("{text}="), format!("{text}A"));
        // The last character carries two bits that must be 0.
        let uncanonical = format!("{}t", &text[..42]);
        for other in ["", "batch", &text[..42], &standard, &padded, &longer, &uncanonical] {
            assert!(parse_key(other).is_err(), "{other}");
        }
    }

    #[test]
    fn a_cursor_is_a_revision_or_two() {
        let cursor = |text: &str| {
            let query = ChangesQuery {
                after: Some(text.to_owned()),
            };
            query.cursor().ok().map(|cursor| (cursor.after.0, cursor.since.0))
        };
        assert_eq!(cursor("0"), Some((0, 0)));
        assert_eq!(cursor("17"), Some((17, 17)));
        assert_eq!(cursor("17.40"), Some((17, 40)));
        for text in [
            "",
            ".",
            "1.",
            ".1",
            "-1",
            "+1",
            "1.2.3",
            "1 ",
            "99999999999999999999",
            "x",
        ] {
            assert_eq!(cursor(text), None, "{text}");
        }
        assert_eq!(ChangesQuery { after: None }.cursor().unwrap(), DataCursor::default());
    }
}
