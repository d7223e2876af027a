//! Tables of the database: their columns, what stored values look like, and their indexes.

use serde::Deserialize;

use super::Subject;

/// A kind of database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
}

/// A table, with all its columns and indexes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// What a row is.
    pub what: String,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Its indexes, those that constraints make included.
    pub indexes: Vec<Index>,
}

/// A column.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What the databases hold it as.
    #[serde(rename = "type")]
    pub column_type: ColumnType,
    /// What its values look like.
    pub form: Form,
    /// Whether its values must look like random bytes.
    pub entropy: Option<Entropy>,
    /// How many bytes each value has, where it is always the same number.
    pub bytes: Option<usize>,
    /// Every value that it can have, where those are words.
    pub values: Option<Vec<String>>,
    /// The datum of which it holds a part.
    pub datum: String,
    /// Whom it is about, where that is another than the datum's.
    pub about: Option<Subject>,
    /// What it is.
    pub what: String,
}

/// What the databases hold a column as.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ColumnType {
    /// Any bytes.
    Bytes,
    /// Sixteen bytes, which Postgres has a type for.
    Id,
    /// A number.
    Integer,
    /// Yes or no.
    Boolean,
    /// Words.
    Text,
    /// A time, which only the driver's own table has.
    Time,
}

/// What a stored value looks like, and so what an audit may and may not find in it.
#[derive(Clone, Copy, Debug, Deserialize, Hash, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The random id of an account.
    AccountId,
    /// Random bytes or a random number of the server's.
    Random,
    /// A hash under a key that is not in the database.
    KeyedHash,
    /// A hash with a salt beside it.
    SaltedHash,
    /// A hash of something long and random.
    Hash,
    /// Sealed so that only the device opens it: to its queue key, password, token or identity key.
    SealedToDevice,
    /// Sealed under a key that comes from the pepper.
    SealedUnderPepper,
    /// Encrypted by a client.
    ClientCiphertext,
    /// Derived by a client from keys of its own, or from a name; unreadable, but not encrypted.
    ClientDerived,
    /// The text by which clients fetch an attachment.
    AttachmentPath,
    /// A public key.
    PublicKey,
    /// A signature.
    Signature,
    /// A value of the server itself: a keyed hash, a public key or random bytes, as the row's name says.
    ServerValue,
    /// A count, a length or a place in an order.
    Counter,
    /// A number that means something to clients only.
    Number,
    /// One of a few values.
    Choice,
    /// Days since 1970.
    Day,
    /// A time of day, of what lives for minutes, or of the server itself.
    Instant,
    /// Words of the server's own.
    Clear,
}

impl Form {
    /// Whether the bytes are sealed or encrypted, so that a column of it must say what its entropy is.
    pub fn is_ciphertext(self) -> bool {
        matches!(
            self,
            Self::SealedToDevice | Self::SealedUnderPepper | Self::ClientCiphertext
        )
    }
}

/// Whether stored bytes must look like random ones.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Entropy {
    /// The server sealed them: if they do not, it did not.
    Demanded,
    /// A client encrypted them: if they do not, it is the client's doing.
    Expected,
}

/// An index.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Index {
    /// Its columns, in order.
    pub columns: Vec<String>,
    /// What made it.
    pub kind: IndexKind,
    /// Whether it leaves rows out.
    #[serde(default)]
    pub partial: bool,
    /// Its name in SQLite; absent where the table itself is in that order.
    pub sqlite: Option<String>,
    /// Its name in Postgres.
    pub postgres: String,
    /// What it is for.
    pub why: String,
}

/// What made an index.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum IndexKind {
    /// The primary key.
    PrimaryKey,
    /// Values that may not come twice.
    Unique,
    /// A search.
    Search,
}

impl Table {
    /// The column of this name.
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The indexes that this kind of database has, with their names.
    pub fn indexes_on<'a>(&'a self, engine: Engine) -> impl Iterator<Item = (&'a str, &'a Index)> {
        let name = move |index: &'a Index| match engine {
            Engine::Sqlite => index.sqlite.as_deref(),
            Engine::Postgres => Some(index.postgres.as_str()),
        };
        self.indexes.iter().filter_map(move |index| Some((name(index)?, index)))
    }
}

impl ColumnType {
    /// Whether a column that the database declares so is of this type. SQLite says what stands in its `CREATE TABLE`,
    /// Postgres what `information_schema.columns.data_type` says.
    pub fn is_declared(self, engine: Engine, declared: &str) -> bool {
        let names: &[&str] = match (engine, self) {
            (Engine::Sqlite, Self::Bytes | Self::Id) => &["BLOB"],
            (Engine::Sqlite, Self::Integer) => &["INTEGER", "BIGINT"],
            (Engine::Sqlite, Self::Boolean) => &["INTEGER", "BOOLEAN"],
            (Engine::Sqlite, Self::Text) => &["TEXT"],
            (Engine::Sqlite, Self::Time) => &["TIMESTAMP"],
            (Engine::Postgres, Self::Bytes) => &["bytea"],
            (Engine::Postgres, Self::Id) => &["uuid"],
            (Engine::Postgres, Self::Integer) => &["smallint", "integer", "bigint"],
            (Engine::Postgres, Self::Boolean) => &["boolean"],
            (Engine::Postgres, Self::Text) => &["text"],
            (Engine::Postgres, Self::Time) => &["timestamp with time zone"],
        };
        names.contains(&declared)
    }
}

impl Index {
    /// Whether no two rows may be alike in it.
    pub fn is_unique(&self) -> bool {
        self.kind != IndexKind::Search
    }
}
