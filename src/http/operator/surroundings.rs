//! What the operator's acts do to the rest of a node. The one place where the two meet.

use async_trait::async_trait;

use crate::admin::{Connections, Surroundings};
use crate::domain::{Aci, Erased, MailboxId};
use crate::http::accounts::left_behind;
use crate::http::profiles;
use crate::http::state::AppState;
use crate::storage::StorageError;

/// The rest of a node.
pub struct NodeSurroundings(pub AppState);

#[async_trait]
impl Surroundings for NodeSurroundings {
    fn account_changed(&self, account: Aci, ended: &[MailboxId]) {
        self.0.relay.account_changed(account, ended);
    }

    async fn retire_pictures(&self, account: Aci) -> Result<(), StorageError> {
        let pictures = self.0.storage.profiles.avatars(account).await?;
        self.0.attachments.retire(profiles::keys(&pictures)).await
    }

    async fn erased(&self, account: Aci, erased: Erased) {
        drop(left_behind(self.0.clone(), account, erased, true).await);
    }

    fn drain(&self, on: bool) {
        if on {
            self.0.drain.begin();
        } else {
            self.0.drain.undo();
        }
    }

    fn connections(&self) -> Connections {
        let (sockets, draining) = self.0.drain.stand();
        Connections {
            devices: self.0.relay.presence.mailboxes().len(),
            sockets,
            draining,
        }
    }

    fn refused(&self) -> Vec<(&'static str, u64)> {
        self.0.limits.refused_counts()
    }
}
