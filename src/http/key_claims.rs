//! One claim of prekey bundles: by whom, of what, and what its answer leads to.

use std::sync::Arc;

use axum::http::{Extensions, HeaderMap};

use crate::auth::Authenticated;
use crate::directory::budget::Standing;
use crate::directory::{ClaimName, Requester, Wanting};
use crate::domain::{Account, BundleSelector, IdentityKind, ServiceId};
use crate::relay::notices::Notice;
use crate::storage::StorageError;

use super::blocks::has_blocked;
use super::error::ApiError;
use super::messages::sender;
use super::reach::is_known_to;
use super::state::AppState;
use super::wire::keys::BundlesOut;

/// Who asks, as budgets count it: an account, or strangers of one network.
pub(super) async fn requester(
    node: &AppState,
    target: &ServiceId,
    account: &Account,
    caller: Option<&Authenticated>,
    headers: &HeaderMap,
    extensions: &Extensions,
) -> Result<Requester, StorageError> {
    let own = caller.is_some_and(|caller| caller.address.aci == account.aci);
    Ok(Requester {
        name: sender(caller, extensions).as_bytes().to_vec(),
        standing: Standing {
            shows_access_key: own || is_known_to(node, target, account, headers),
            blocked: match caller {
                Some(caller) => has_blocked(node, account, caller).await?,
                None => false,
            },
        },
    })
}

/// A claim of bundles that may be made.
pub(super) struct Claim {
    pub(super) node: AppState,
    pub(super) account: Arc<Account>,
    pub(super) kind: IdentityKind,
    pub(super) selector: BundleSelector,
    pub(super) requester: Requester,
}

impl Claim {
    /// The bundles as they are answered; `None` if there are none.
    pub(super) async fn take(self) -> Result<Option<Vec<u8>>, ApiError> {
        let Self {
            node,
            account,
            kind,
            selector,
            requester,
        } = self;
        let today = node.clock.now().day();
        let taken = node
            .directory
            .take(&node.limits, &requester, &account, kind, selector, today);
        let Some(taken) = taken.await? else { return Ok(None) };
        for device in taken.wanting {
            tell_owner(&node, device, kind);
        }
        let json = serde_json::to_vec(&BundlesOut::from(&taken.bundles));
        json.map(Some)
            .map_err(|_| ApiError::unavailable("a bundle could not be written as JSON"))
    }

    /// The same, or what the same claim was answered a moment ago.
    pub(super) async fn take_once(
        self,
        caller: Option<&Authenticated>,
        retry: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, ApiError> {
        let (account, mut name) = (&self.account, ClaimName::default());
        // A stranger is known by its key for the claim alone, wherever it asks from the second time.
        name = name.with(caller.map_or(&[], |caller| caller.address.aci.as_bytes()));
        name = name.with(&account.service_id(self.kind).to_fixed_width());
        name = name.with(&match self.selector {
            BundleSelector::All => [0],
            BundleSelector::One(device) => [device.get()],
        });
        // With other devices or another identity it is another account to whoever writes to it.
        name = name.with(account.identity(self.kind).serialized());
        for device in &account.devices {
            name = name.with(&device.mailbox.0.to_be_bytes());
        }
        name = name.with(&retry);
        // On a task of its own: a client that gives up while keys are being taken finds the same ones when it comes again.
        let claim = tokio::spawn(async move {
            let node = AppState::clone(&self.node);
            node.directory.memo.answer(&name, self.take()).await
        });
        claim
            .await
            .map_err(|_| ApiError::unavailable("a claim of keys was cancelled"))?
    }
}

/// Tells a device that it should publish keys, if it is connected. On a task of its own, so that the time of the answer does
/// not tell whether it is (T44).
fn tell_owner(node: &AppState, device: Wanting, kind: IdentityKind) {
    if !node.relay.may_hear(device.mailbox) {
        return;
    }
    let node = AppState::clone(node);
    tokio::spawn(async move {
        match node.directory.shortage(&device, kind).await {
            Ok(Some(left)) => node.relay.notify(device.mailbox, Notice::PreKeysLow { kind, left }),
            Ok(None) => {}
            Err(error) => tracing::warn!(cause = error.log_safe_cause(), "keys could not be counted"),
        }
    });
}
