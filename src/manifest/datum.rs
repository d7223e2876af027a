//! What the server knows, in the words of the threat model and of the page for its users.

use serde::Deserialize;

/// One thing that the server knows, wherever it is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Datum {
    /// How places name it: `phone-number`.
    pub id: String,
    /// What auditors call it.
    pub title: String,
    /// What its users call it.
    pub heading: String,
    /// Whom or what it is about.
    pub about: Subject,
    /// Where it is held, if it is at no place that the manifest lists.
    pub held: Option<Held>,
    /// The form in which it is held, for auditors.
    pub form: String,
    /// What it is, for its users.
    pub plain: String,
    /// What it is needed for.
    pub why: String,
    /// How long it is kept.
    pub kept: String,
    /// Who can see it.
    pub seen_by: Vec<Viewer>,
    /// What else there is to say about who sees it, in sentences.
    pub seen_note: Option<String>,
    /// What it is meant to become, where that is something else.
    pub goal: Option<String>,
}

/// Whom or what a datum is about.
#[derive(Clone, Copy, Debug, Deserialize, Hash, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// An account, or whoever is about to have one.
    Account,
    /// One device of an account.
    Device,
    /// Someone with whom an account has to do.
    Contact,
    /// No account: the server itself, or all of them together.
    Nobody,
}

/// Where something is held that is at no place of its own.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Held {
    /// In the memory of a node.
    Memory,
    /// Not by the server: it makes it, hands it out and forgets it.
    Nowhere,
}

/// Who can see a datum.
#[derive(Clone, Copy, Debug, Deserialize, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Viewer {
    /// A serving node.
    Nd,
    /// Whoever reads the database.
    Db,
    /// Whoever reads the attachment store.
    Ob,
    /// Whoever listens to Redis.
    Rd,
    /// The owner of the account.
    Ow,
    /// Whoever may send to the account.
    Pub,
    /// Whoever uses `blind-relay admin`.
    Ad,
    /// Whoever runs the server, from its files, log and metrics.
    #[serde(rename = "operator")]
    Operator,
}
