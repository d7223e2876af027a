//! The key directory: which keys it takes in, and how it hands them out.

mod publish;

use std::sync::Arc;

use crate::domain::{Account, BundleSelector, IdentityKind, KyberSource, TakenBundles};
use crate::storage::{KeyStore, StorageError};
use crate::telemetry::metrics;

pub use publish::{KeysRefused, MAX_KEYS_PER_LIST, check_signed, check_upload};

/// Takes bundles for one request; `None` if there is nothing to hand out.
pub async fn take_bundles(
    keys: &Arc<dyn KeyStore>,
    account: &Account,
    kind: IdentityKind,
    selector: BundleSelector,
) -> Result<Option<TakenBundles>, StorageError> {
    let taken = keys.take_bundles(account.aci, kind, selector).await?;
    // An answer without devices would make clients panic: a device that has no keys is as good as none.
    let taken = taken.filter(|taken| !taken.devices.is_empty());
    for bundle in taken.iter().flat_map(|taken| &taken.devices) {
        metrics::kyber_key_taken(match bundle.kyber_source {
            KyberSource::OneTime => "one_time",
            KyberSource::LastResort => "last_resort",
        });
    }
    Ok(taken)
}
