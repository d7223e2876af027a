//! The acts. What is about one thing is written down as it takes place; what only changes this node is written down before.

use crate::accounts::{InviteCode, InviteRefused, InviteWish};
use crate::domain::{
    AccountGlance, Aci, AdminAct, AdminOutcome, AdminRecord, Invite, InviteId, LogPage, Pseudonym, Sums,
};
use crate::storage::StorageError;

use super::{AdminState, Connections};

/// A user of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operator {
    /// Its number.
    pub uid: u32,
}

impl AdminState {
    /// Sums over all accounts, and how many invites are open.
    pub async fn sums(&self) -> Result<(Sums, usize), StorageError> {
        let invites = self.invites.list().await?.len();
        Ok((self.store.sums().await?, invites))
    }

    /// What is open on this node now.
    pub fn connections(&self) -> Connections {
        self.surroundings.connections()
    }

    /// What the operator may see of an account; `None` if there is none.
    pub async fn show(&self, by: Operator, account: Aci) -> Result<Option<AccountGlance>, StorageError> {
        let record = self.about(by, AdminAct::AccountShow, account);
        self.store.glance(account, &record).await
    }

    /// Shuts an account out, or lets it in again; `false` if there is none.
    pub async fn set_suspended(&self, by: Operator, account: Aci, suspended: bool) -> Result<bool, StorageError> {
        let act = if suspended {
            AdminAct::AccountSuspend
        } else {
            AdminAct::AccountResume
        };
        let record = self.about(by, act, account);
        let Some(mailboxes) = self.store.set_suspended(account, suspended, &record).await? else {
            return Ok(false);
        };
        let ended: &[_] = if suspended { &mailboxes } else { &[] };
        self.surroundings.account_changed(account, ended);
        Ok(true)
    }

    /// Deletes an account, as its owner's own deletion does; `false` if there is none.
    pub async fn delete(&self, by: Operator, account: Aci) -> Result<bool, StorageError> {
        let record = self.about(by, AdminAct::AccountDelete, account);
        let erasing = async {
            self.surroundings.retire_pictures(account).await?;
            self.store.erase(account, &record).await
        };
        let erased = match erasing.await {
            Ok(erased) => erased,
            Err(error) => {
                // The pictures may be gone. If the database is away, so is the log; the answer tells the operator in any case,
                // and of what went wrong first.
                let _ = self.store.record(&record, AdminOutcome::Failed).await;
                return Err(error);
            }
        };
        if erased.mailboxes.is_empty() {
            return Ok(false);
        }
        self.surroundings.erased(account, erased).await;
        Ok(true)
    }

    /// Makes an invite. Its code is nowhere else than in the answer.
    pub async fn create_invite(&self, by: Operator, wish: InviteWish) -> Result<(Invite, InviteCode), InviteRefused> {
        let (invite, code, hash) = match self.invites.draw(wish) {
            Ok(drawn) => drawn,
            Err(refused) => {
                self.refused(by, AdminAct::InviteCreate).await?;
                return Err(refused);
            }
        };
        let record = self.record(by, AdminAct::InviteCreate, Some(self.pseudonyms.invite(&invite.id)));
        if self.store.create_invite(&hash, &invite, &record).await? {
            Ok((invite, code))
        } else {
            Err(InviteRefused::TooMany)
        }
    }

    /// The invites that let somebody in yet.
    pub async fn invites(&self) -> Result<Vec<Invite>, StorageError> {
        self.invites.list().await
    }

    /// Takes an invite back; `false` if there is none of that name. Whoever it has let in stays.
    pub async fn revoke_invite(&self, by: Operator, id: &InviteId) -> Result<bool, StorageError> {
        let record = self.record(by, AdminAct::InviteRevoke, Some(self.pseudonyms.invite(id)));
        self.store.revoke_invite(id, &record).await
    }

    /// Sends the clients of this node elsewhere, or lets them in again.
    pub async fn drain(&self, by: Operator, on: bool) -> Result<Connections, StorageError> {
        let act = if on { AdminAct::Drain } else { AdminAct::DrainUndo };
        self.store
            .record(&self.record(by, act, None), AdminOutcome::Done)
            .await?;
        self.surroundings.drain(on);
        Ok(self.surroundings.connections())
    }

    /// A page of the log, of all of it or of what was about one thing.
    pub async fn log(&self, after: i64, limit: u32, about: Option<&Pseudonym>) -> Result<LogPage, StorageError> {
        self.store.log(after, limit, about).await
    }

    /// Writes down what was asked for in no form that means anything.
    pub async fn refused(&self, by: Operator, act: AdminAct) -> Result<(), StorageError> {
        self.store
            .record(&self.record(by, act, None), AdminOutcome::Refused)
            .await
    }

    fn about(&self, by: Operator, act: AdminAct, account: Aci) -> AdminRecord {
        self.record(by, act, Some(self.pseudonyms.account(account)))
    }

    fn record(&self, by: Operator, act: AdminAct, target: Option<Pseudonym>) -> AdminRecord {
        AdminRecord {
            act,
            target,
            uid: by.uid,
            minute: self.clock.now().minute(),
        }
    }
}
