//! The keys for sealed sender: loaded at start, and made, shown and replaced by `blind-relay keys`. Those of tokens are in
//! [`tokens`].
//!
//! Clients pin one trust root, so the database remembers the first that a node brought, and a node with another is refused
//! before it makes anything.

use std::fmt::Write;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use keys_schema::EcPublicKey;
use serde_json::json;

use crate::auth::OpenedKey;
use crate::certificates::{Issuer, KeyFileError, KeyFiles, ServerKey};
use crate::cli::KeysStep;
use crate::config::Config;
use crate::encoding::{self, BASE64};
use crate::secret_file;
use crate::storage::AccountStore;

use super::{say, tokens};

/// Where the settings say that the keys are.
pub fn key_files(config: &Config) -> KeyFiles {
    let files = &config.sealed_sender;
    KeyFiles::new(files.trust_root_file.clone(), files.server_key_file.clone())
}

/// Makes, shows or replaces the keys.
pub async fn keys(config: &Config, step: KeysStep) -> anyhow::Result<()> {
    let files = key_files(config);
    match step {
        KeysStep::Init => {
            secret_file::create_private_dir(&config.data_dir)
                .with_context(|| format!("cannot make the data directory {}", config.data_dir.display()))?;
            say(&described(&files, &files.init().map_err(told)?));
        }
        KeysStep::Show { json } => {
            let key = files.read().map_err(told)?;
            let missing = || told(KeyFileError::NoServerKey(files.server_key_path().to_owned()));
            let key = key.ok_or_else(missing)?;
            // What clients pin is shown whether the database can be read or not.
            let signing = tokens::keys(config).await;
            say(&if json {
                as_json(&files, &key, signing.ok())
            } else {
                let tokens = match signing {
                    Ok(signing) => tokens::described(&signing),
                    Err(error) => format!("Keys that sign tokens\n  not known: {error:#}\n"),
                };
                described(&files, &key) + &tokens
            });
        }
        KeysStep::Rotate { now } => say(&tokens::rotate(config, now).await?),
        KeysStep::RotateServerKey => {
            let key = files.rotate().map_err(told)?;
            say(&described(&files, &key));
            say("Restart the node to use the new server key. What the old one signed stays valid until it expires.\n");
        }
    }
    Ok(())
}

/// What issues sender certificates. Keys are made on the first start of a database, and never for one that has a trust
/// root already.
pub(super) async fn issuer(config: &Config, accounts: &dyn AccountStore) -> anyhow::Result<Issuer> {
    let files = key_files(config);
    let pinned = accounts.trust_root().await.context("cannot read the database")?;
    if let Some(pinned) = pinned {
        match files.public_trust_root().map_err(told)? {
            Some(ours) if ours == pinned => {}
            Some(ours) => return Err(other_root(&files, &ours, Some(&pinned))),
            None => bail!(
                "the database has a trust root for sealed sender and this node has no key under it; copy another node's \
                 trust root to {}, or its server key to {}, or restore one of them from its backup",
                files.trust_root_path().display(),
                files.server_key_path().display()
            ),
        }
    }
    let key = files.read_or_create().map_err(told)?;
    let ours = *key.trust_root();
    if !accounts
        .pin_trust_root(&ours)
        .await
        .context("cannot read the database")?
    {
        // Another node was quicker.
        return Err(other_root(&files, &ours, None));
    }
    Ok(Issuer::new(key, config.sealed_sender.certificate_lifetime))
}

fn other_root(files: &KeyFiles, ours: &EcPublicKey, pinned: Option<&EcPublicKey>) -> anyhow::Error {
    let mut text = format!(
        "this node's trust root for sealed sender, {}, is not the database's",
        hex(ours)
    );
    if let Some(pinned) = pinned {
        let _ = write!(text, ", {}", hex(pinned));
    }
    let (root, server) = (files.trust_root_path().display(), files.server_key_path().display());
    anyhow!(
        "{text}: clients pin the latter and would take no message; move {root} and {server} away, and copy another node's \
         trust root to {root} or its server key to {server}"
    )
}

fn told(error: KeyFileError) -> anyhow::Error {
    anyhow!("keys: {error}; {}", error.remedy())
}

fn described(files: &KeyFiles, key: &ServerKey) -> String {
    let root = key.trust_root();
    let private = if files.has_trust_root() {
        format!(
            "in {}: keep a copy offline, nobody can replace it",
            files.trust_root_path().display()
        )
    } else {
        "not here, which is well: it is needed only to make a server key".to_owned()
    };
    format!(
        "Trust root, which clients pin\n  \
         hex           {}\n  \
         base64        {}\n  \
         private half  {private}\n\
         Server key\n  \
         number        {}\n  \
         file          {}\n",
        hex(root),
        BASE64.encode(root.serialized()),
        key.id(),
        files.server_key_path().display()
    )
}

fn as_json(files: &KeyFiles, key: &ServerKey, signing: Option<Vec<Arc<OpenedKey>>>) -> String {
    let root = key.trust_root();
    let kids = signing.map(|keys| keys.iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>());
    let shown = json!({
        "token_keys": kids,
        "trust_root": hex(root),
        "trust_root_base64": BASE64.encode(root.serialized()),
        "trust_root_private_half_here": files.has_trust_root(),
        "server_key_number": key.id(),
    });
    format!("{shown}\n")
}

fn hex(key: &EcPublicKey) -> String {
    encoding::hex(key.serialized())
}
