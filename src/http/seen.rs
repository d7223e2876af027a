//! Keeps the day on which a device was last seen: a registration lock and the removal of idle devices go by it.

use std::sync::Arc;

use crate::auth::Authenticated;

use super::state::AppState;

/// Keeps the day of a request or a connection, if it is another one than before.
pub(super) fn by_request(node: &AppState, who: &Authenticated) {
    let today = node.clock.now().day();
    if who.last_seen >= today {
        return;
    }
    // Beside what the device asked for and not before it: on the first morning minute all devices come.
    let address = who.address;
    let (accounts, cache) = (Arc::clone(&node.storage.accounts), Arc::clone(&node.relay.accounts));
    node.tasks.spawn(async move {
        match accounts.touch(address, today).await {
            Ok(()) => cache.forget(address.aci),
            // Only the day is lost, and the next connection will bring it.
            Err(error) => tracing::warn!(
                cause = error.log_safe_cause(),
                "the day of a connection could not be kept"
            ),
        }
    });
}
