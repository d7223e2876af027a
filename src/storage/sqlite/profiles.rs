//! Profiles on SQLite. There is one writer, so the ages of an account's versions are counted without gaps.

use async_trait::async_trait;

use super::Database;
use crate::domain::{Aci, Actor, Avatar, AvatarChange, MAX_PROFILE_VERSIONS, Profile, ProfileVersion};
use crate::storage::profiles::without;
use crate::storage::rows::ProfileRow;
use crate::storage::{ProfileStore, StorageError};

/// Profiles in one file.
pub(super) struct SqliteProfiles {
    database: Database,
}

impl SqliteProfiles {
    pub(super) fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl ProfileStore for SqliteProfiles {
    #[tracing::instrument(name = "db.profiles.publish", level = "debug", skip_all)]
    async fn publish(
        &self,
        by: &Actor,
        version: &ProfileVersion,
        profile: &Profile,
        avatar: &AvatarChange,
    ) -> Result<Option<Vec<Avatar>>, StorageError> {
        let Some(mut tx) = self.database.begin_as(by).await? else {
            return Ok(None);
        };
        let before = avatars(&mut *tx, by.address.aci).await?;
        sqlx::query(GROW_OLDER)
            .bind(by.address.aci.as_uuid())
            .bind(version.0.as_slice())
            .bind(MAX_PROFILE_VERSIONS)
            .execute(&mut *tx)
            .await?;
        sqlx::query(DROP_OLD)
            .bind(by.address.aci.as_uuid())
            .bind(MAX_PROFILE_VERSIONS)
            .execute(&mut *tx)
            .await?;
        let (keep, replaced) = match avatar {
            AvatarChange::Clear => (false, None),
            AvatarChange::Keep => (true, None),
            AvatarChange::Replace(avatar) => (false, Some(avatar.0.as_str())),
        };
        sqlx::query(PUBLISH)
            .bind(by.address.aci.as_uuid())
            .bind(version.0.as_slice())
            .bind(profile.commitment.as_slice())
            .bind(&profile.name[..])
            .bind(profile.about.as_deref())
            .bind(profile.about_emoji.as_deref())
            .bind(profile.payment_address.as_deref())
            .bind(profile.phone_number_sharing.as_deref())
            .bind(replaced)
            .bind(keep)
            .execute(&mut *tx)
            .await?;
        let after = avatars(&mut *tx, by.address.aci).await?;
        tx.commit().await?;
        Ok(Some(without(before, &after)))
    }

    #[tracing::instrument(name = "db.profiles.find", level = "debug", skip_all)]
    async fn find(&self, aci: Aci, version: &ProfileVersion) -> Result<Option<Profile>, StorageError> {
        let row: Option<ProfileRow> = sqlx::query_as(FIND)
            .bind(aci.as_uuid())
            .bind(version.0.as_slice())
            .fetch_optional(&self.database.read)
            .await?;
        row.map(ProfileRow::into_profile).transpose()
    }

    #[tracing::instrument(name = "db.profiles.avatars", level = "debug", skip_all)]
    async fn avatars(&self, aci: Aci) -> Result<Vec<Avatar>, StorageError> {
        avatars(&self.database.read, aci).await
    }
}

async fn avatars<'e>(
    db: impl sqlx::Executor<'e, Database = sqlx::Sqlite>,
    aci: Aci,
) -> Result<Vec<Avatar>, StorageError> {
    let found: Vec<String> = sqlx::query_scalar(AVATARS).bind(aci.as_uuid()).fetch_all(db).await?;
    Ok(found.into_iter().map(Avatar).collect())
}

// Those written since this version was; all of them if it is new.
const GROW_OLDER: &str = "UPDATE profiles SET age = age + 1 WHERE aci = $1 \
    AND age < coalesce((SELECT age FROM profiles WHERE aci = $1 AND version = $2), $3)";
const DROP_OLD: &str = "DELETE FROM profiles WHERE aci = $1 AND age >= $2";
const AVATARS: &str = "SELECT avatar FROM profiles WHERE aci = $1 AND avatar IS NOT NULL";
const PUBLISH: &str = "INSERT INTO profiles (aci, version, age, commitment, name, about, about_emoji, payment_address, \
        phone_number_sharing, avatar) \
    VALUES ($1, $2, 0, $3, $4, $5, $6, $7, $8, $9) \
    ON CONFLICT (aci, version) DO UPDATE SET age = 0, commitment = excluded.commitment, name = excluded.name, \
        about = excluded.about, about_emoji = excluded.about_emoji, payment_address = excluded.payment_address, \
        phone_number_sharing = excluded.phone_number_sharing, \
        avatar = CASE WHEN $10 THEN profiles.avatar ELSE excluded.avatar END";
const FIND: &str = "SELECT commitment, name, about, about_emoji, payment_address, phone_number_sharing, avatar \
    FROM profiles WHERE aci = $1 AND version = $2";

#[cfg(test)]
mod tests {
    crate::storage::conformance::profile_store_suite!(crate::storage::testing::sqlite);
}
