//! The key directory: which keys it takes in, and how it hands them out.

pub mod budget;

mod claims;
mod low_stock;
mod memo;
mod publish;

use std::sync::Arc;

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use crate::domain::{
    Account, BundleSelector, Day, Device, DeviceId, IdentityKind, KeyCount, KyberSource, MailboxId, ProtocolAddress,
    Take, TakenBundles,
};
use crate::limits::{Limit, Limits, Scale};
use crate::storage::{KeyStore, StorageError};
use crate::telemetry::metrics;

use budget::{Counted, Decision, Standing, decide, wants_keys};
use claims::Claims;
use low_stock::LowStock;

pub use claims::KeysUnavailable;
pub use memo::{ClaimMemo, ClaimName};
pub use publish::{KeysRefused, MAX_KEYS_PER_LIST, check_signed, check_upload};

/// The directory of one node.
pub struct Directory {
    keys: Arc<dyn KeyStore>,
    claims: Claims,
    low: LowStock,
    /// The claims of the last minutes.
    pub memo: ClaimMemo,
}

/// Who asks for bundles.
pub struct Requester {
    /// What its budgets are counted by: an account, or the network of a stranger.
    pub name: Vec<u8>,
    /// What it may take.
    pub standing: Standing,
}

/// What was taken for one request.
pub struct Taken {
    /// The answer.
    pub bundles: TakenBundles,
    /// Devices that should publish keys.
    pub wanting: Vec<Wanting>,
}

/// A device that should publish keys.
#[derive(Clone, Copy)]
pub struct Wanting {
    /// Which.
    pub address: ProtocolAddress,
    /// Where it hears of it.
    pub mailbox: MailboxId,
}

impl Directory {
    /// Hands out what is stored there, in `lanes` transactions at a time, which are made on the tracker.
    pub fn start(keys: Arc<dyn KeyStore>, lanes: usize, tasks: &TaskTracker) -> Self {
        Self {
            claims: Claims::start(lanes, tasks, &keys),
            keys,
            low: LowStock::default(),
            memo: ClaimMemo::default(),
        }
    }

    /// Takes bundles for one request; `None` if there is nothing to hand out. One-time keys are in them as far as budgets
    /// go.
    pub async fn take(
        &self,
        limits: &Limits,
        requester: &Requester,
        account: &Account,
        kind: IdentityKind,
        selector: BundleSelector,
        today: Day,
    ) -> Result<Option<Taken>, KeysUnavailable> {
        let decision = count(limits, requester, account, selector).await;
        let take = Take {
            aci: account.aci,
            kind,
            selector,
            allowance: decision.allowance.clone(),
        };
        let taken = self.claims.take(take, today).await?;
        // An answer without devices would make clients panic: a device that has no keys is as good as none.
        let Some(bundles) = taken.filter(|taken| !taken.devices.is_empty()) else {
            return Ok(None);
        };
        let mut wanting = Vec::new();
        for bundle in &bundles.devices {
            metrics::kyber_key_taken(match bundle.kyber_source {
                KyberSource::OneTime => "one_time",
                KyberSource::LastResort => "last_resort",
            });
            let why = decision.last_resort(bundle);
            if let Some(why) = why {
                metrics::last_resort_bundle(why.label());
            }
            if let Some(device) = account.device(bundle.device_id)
                && wants_keys(why, bundle)
            {
                wanting.push(Wanting {
                    address: ProtocolAddress {
                        aci: account.aci,
                        device_id: device.id,
                    },
                    mailbox: device.mailbox,
                });
            }
        }
        Ok(Some(Taken { bundles, wanting }))
    }

    /// What is left to a device that should publish keys; `None` if it was told within the minute, which it counts as
    /// from now on.
    pub async fn shortage(&self, device: &Wanting, kind: IdentityKind) -> Result<Option<KeyCount>, StorageError> {
        if !self.low.is_news(device.mailbox, kind) {
            return Ok(None);
        }
        self.keys.count(device.address, kind).await.map(Some)
    }

    /// Drops what is remembered for a while only. To be called now and then.
    pub fn tidy(&self) {
        self.memo.tidy();
        self.low.tidy();
    }
}

/// Counts the request for each device that it is about.
async fn count(limits: &Limits, requester: &Requester, account: &Account, selector: BundleSelector) -> Decision {
    let standing = requester.standing;
    if limits.scale() == Scale::Off && !standing.blocked {
        return Decision::UNLIMITED;
    }
    let selected = |device: &&Device| match selector {
        BundleSelector::All => true,
        BundleSelector::One(one) => device.id == one,
    };
    let devices = account.devices.iter().filter(selected);
    let counted = devices.map(async |device| (device.id, count_device(limits, requester, account, device.id).await));
    decide(standing, &join_all(counted).await)
}

/// In this order, so that who is over its own budget takes nothing from those of others.
async fn count_device(limits: &Limits, requester: &Requester, account: &Account, device: DeviceId) -> Counted {
    let (aci, device) = (account.aci.as_bytes(), [device.get()]);
    if requester.standing.blocked {
        return Counted::OverRequester;
    }
    let own: [&[u8]; 3] = [&requester.name, aci, &device];
    if limits.check(Limit::OneTimeKeys, &own).await.is_err() {
        return Counted::OverRequester;
    }
    // A part of what all may take is left to those who show the access key, whoever else asks.
    if !requester.standing.shows_access_key
        && limits
            .check(Limit::OneTimeKeysForAnyone, &[aci, &device])
            .await
            .is_err()
    {
        return Counted::OverTarget;
    }
    match limits.check(Limit::OneTimeKeysOfTarget, &[aci, &device]).await {
        Ok(()) => Counted::Within,
        Err(_) => Counted::OverTarget,
    }
}
