//! The statements, one of each kind for each table of the manifest: SQL is constant text, and a test holds the list against
//! the manifest. A table that is not in it is found by its name in the catalogue, and is a violation unread.

/// How a table is read.
pub(in crate::audit) struct Table {
    /// Its name.
    pub(in crate::audit) name: &'static str,
    pub(super) sqlite_page: &'static str,
    pub(super) sqlite_count: &'static str,
    pub(super) postgres_rows: &'static str,
    /// Whether the row's number in SQLite is a value of the row: `INTEGER PRIMARY KEY`.
    pub(super) rowid_is_value: bool,
}

macro_rules! tables {
    ($($name:literal),+ $(,)?) => {
        /// Every table of the manifest.
        pub(in crate::audit) const TABLES: &[Table] = &[$(Table {
            name: $name,
            sqlite_page: concat!("SELECT rowid AS _row, * FROM \"", $name, "\" WHERE rowid >= $1 ORDER BY rowid LIMIT $2"),
            sqlite_count: concat!("SELECT count(*) FROM \"", $name, "\""),
            postgres_rows: concat!("SELECT ctid::text AS _row, * FROM \"", $name, "\""),
            rowid_is_value: matches!($name.as_bytes(), b"mailboxes" | b"admin_log"),
        }),+];
    };
}
tables!(
    "settings",
    "accounts",
    "mailboxes",
    "envelopes",
    "devices",
    "signed_keys",
    "one_time_ec_keys",
    "one_time_kyber_keys",
    "spent_keys",
    "verification_sessions",
    "invites",
    "link_offers",
    "token_sessions",
    "token_keys",
    "usernames",
    "username_links",
    "profiles",
    "attachments",
    "attachment_segments",
    "attachment_budgets",
    "account_data_counters",
    "account_data",
    "admin_log",
    "_sqlx_migrations",
);

/// Rows that belong to a row which must exist.
pub(in crate::audit) struct Orphan {
    /// Whose they are.
    pub(in crate::audit) table: &'static str,
    /// Where the owner should be.
    pub(in crate::audit) owner: &'static str,
    /// Counts them. The same on both databases.
    pub(in crate::audit) count: &'static str,
}

macro_rules! orphans {
    ($($table:literal of $owner:literal where $condition:literal),+ $(,)?) => {
        /// Every row that has an owner. Constraints see to most of it, unless somebody went past them.
        pub(in crate::audit) const ORPHANS: &[Orphan] = &[$(Orphan {
            table: $table,
            owner: $owner,
            count: concat!(
                "SELECT count(*) FROM ", $table, " r WHERE NOT EXISTS (SELECT 1 FROM ", $owner, " o WHERE ", $condition, ")"
            ),
        }),+];
    };
}
orphans!(
    "envelopes" of "mailboxes" where "o.id = r.mailbox",
    "mailboxes" of "devices" where "o.mailbox = r.id",
    "devices" of "mailboxes" where "o.id = r.mailbox",
    "devices" of "accounts" where "o.aci = r.aci",
    "signed_keys" of "devices" where "o.aci = r.aci AND o.device_id = r.device_id",
    "one_time_ec_keys" of "devices" where "o.aci = r.aci AND o.device_id = r.device_id",
    "one_time_kyber_keys" of "devices" where "o.aci = r.aci AND o.device_id = r.device_id",
    "spent_keys" of "devices" where "o.aci = r.aci AND o.device_id = r.device_id",
    "link_offers" of "accounts" where "o.aci = r.aci",
    "token_sessions" of "devices" where "o.mailbox = r.mailbox",
    "usernames" of "accounts" where "r.aci IS NULL OR o.aci = r.aci",
    "username_links" of "accounts" where "o.aci = r.aci",
    "profiles" of "accounts" where "o.aci = r.aci",
    "account_data_counters" of "accounts" where "o.aci = r.aci",
    "account_data" of "account_data_counters" where "o.aci = r.aci",
    "attachment_segments" of "attachments" where "o.name = r.name",
);
