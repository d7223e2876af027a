//! Every limit that there is: the one table. `docs/limits.md` and `GET /v1/limits` are made from it.
//!
//! A bucket holds `burst` and gets one more after `every`. In any period there are therefore at most `burst` and as many as
//! refill in it: where a number of the threat model is for an hour, half of it is burst and half refills. A bucket that takes
//! a day to refill is a budget for the UTC day.

use std::time::Duration;

/// Whom a limit counts: each of these has a bucket of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The network of whoever asks without being a device: an IPv4 /24 or an IPv6 /64.
    Network,
    /// A device.
    Device,
    /// An account, all of its devices together.
    Account,
    /// A phone number or e-mail address.
    Number,
    /// Whoever asks (an account, or a network), and the account that is asked about.
    RequesterAndTarget,
    /// Whoever asks, and one device of the account that is asked about.
    RequesterAndTargetDevice,
    /// A device, whoever asks about it.
    TargetDevice,
}

impl By {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Network => "network of strangers",
            Self::Device => "device",
            Self::Account => "account",
            Self::Number => "number",
            Self::RequesterAndTarget => "account or network, and target account",
            Self::RequesterAndTargetDevice => "account or network, and target device",
            Self::TargetDevice => "target device",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Which limit it is.
    pub limit: Limit,
    /// What it is called for programs.
    pub name: &'static str,
    /// Whom it counts.
    pub by: By,
    /// How many at once.
    pub burst: u32,
    /// After how long one more.
    pub every: Duration,
    /// Whether all nodes count together. Without Redis each node then allows a share.
    pub shared: bool,
    /// What it counts, for people.
    pub what: &'static str,
}

macro_rules! limits {
    ($($limit:ident $name:literal $by:ident $burst:literal per $every:expr, $where:ident: $what:literal;)*) => {
        /// A limit.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Limit {
            $(#[doc = $what] $limit,)*
        }

        /// Every limit, in the order of [`Limit`].
        pub const DECLARED: &[Declared] = &[
            $(Declared {
                limit: Limit::$limit,
                name: $name,
                by: By::$by,
                burst: $burst,
                every: $every,
                shared: limits!(@$where),
                what: $what,
            }),*
        ];
    };
    (@shared) => { true };
    (@local) => { false };
}

impl Limit {
    /// Its row.
    pub fn declared(self) -> &'static Declared {
        &DECLARED[self.index()]
    }

    /// What it is called for programs.
    pub fn name(self) -> &'static str {
        self.declared().name
    }

    /// Its place in [`DECLARED`].
    pub(super) fn index(self) -> usize {
        self as usize
    }
}

const fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

const fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 60 * 60)
}

limits! {
    // limit            name                      by                      burst    one more after    where: what it counts
    Requests            "requests"                Network                   600 per millis(100),      local: "ordinary requests of strangers";
    DeviceRequests      "device_requests"         Device                    600 per millis(100),      local: "ordinary requests of a device";
    Upgrades            "upgrades"                Network                   300 per millis(200),      local: "sockets that strangers open";
    DeviceUpgrades      "device_upgrades"         Device                     60 per secs(5),          local: "sockets that a device opens";
    FailedLogins        "failed_logins"           Network                   100 per secs(5),          shared: "requests with credentials that are not valid";
    Changes             "changes"                 Device                    120 per secs(5),          local: "changes of an account, its devices, names, profile and settings";
    KeyUploads          "key_uploads"             Device                     30 per secs(30),         local: "uploads of prekeys";
    DataRequests        "data_requests"           Device                    600 per millis(200),      local: "reads and writes of what an account keeps for its devices";
    Uploads             "uploads"                 Device                    120 per secs(2),          local: "forms for uploads";
    UploadRequests      "upload_requests"         Network                 2_000 per millis(20),       local: "requests that upload";
    Downloads           "downloads"               Network                 2_000 per millis(20),       local: "downloads";
    Exports             "exports"                 Account                     4 per hours(1),         local: "exports of an account";
    Reports             "reports"                 Device                     60 per secs(60),         local: "reports of spam";
    Sends               "sends"                   Account                 2_000 per millis(50),       local: "messages to one account each, by an account";
    SealedSends         "sealed_sends"            Network                 2_000 per millis(50),       local: "messages to one account each, by strangers";
    FanOuts             "fan_outs"                Network                   300 per secs(1),          local: "messages to many";
    SendsToTarget       "sends_to_target"         RequesterAndTarget        300 per millis(250),      local: "messages to the same account";
    SilentPings         "silent_pings"            RequesterAndTarget         60 per secs(6),          local: "messages to the same account that are for connected devices only";
    Profiles            "profiles"                Account                   600 per secs(1),          shared: "profiles that an account looks at";
    StrangersProfiles   "strangers_profiles"      Network                 1_000 per millis(500),      shared: "profiles that strangers with the access key look at";
    Lookups             "lookups"                 Network                   120 per secs(15),         shared: "user names, links and ids that strangers look up, and checks of identities";
    KeyRequests         "key_requests"            Account                   600 per secs(5),          shared: "requests for bundles of prekeys by an account";
    SealedKeyRequests   "sealed_key_requests"     Network                   600 per secs(2),          shared: "requests for bundles of prekeys by strangers";
    KeyFetches          "key_fetches"             RequesterAndTarget         30 per secs(120),        shared: "requests for bundles of the same account: 60 in any hour";
    OneTimeKeys         "one_time_keys"           RequesterAndTargetDevice    3 per hours(24),        shared: "one-time prekeys of the same device: 3 in a day";
    OneTimeKeysOfTarget "one_time_keys_of_target" TargetDevice               15 per secs(240),        shared: "one-time prekeys of a device, whoever asks: 30 in any hour";
    OneTimeKeysForAnyone "one_time_keys_for_anyone" TargetDevice            10 per secs(360),         shared: "of these, those for whoever does not show the account's access key: 20 in any hour";
    Sessions            "sessions"                Network                    60 per secs(60),         shared: "attempts to verify a number that are begun";
    SessionRequests     "session_requests"        Network                   300 per secs(10),         shared: "requests about such attempts";
    CodeTries           "code_tries"              Network                   120 per secs(30),         shared: "codes that are tried";
    CodesSent           "codes_sent"              Network                    60 per secs(60),         shared: "codes that are asked for";
    CodeOfNumber        "code_of_number"          Number                      1 per secs(60),         shared: "codes for the same number: one in a minute";
    CodesOfNumber       "codes_of_number"         Number                      5 per hours(24),        shared: "codes for the same number: 5 in a day";
    Registrations       "registrations"           Network                    60 per secs(60),         shared: "registrations";
    Links               "links"                   Network                    60 per secs(60),         shared: "devices that are linked";
    LinkMessages        "link_messages"           Device                     30 per secs(10),         local: "messages to devices that are about to be linked";
    TokenSessions       "token_sessions"          Device                     20 per secs(60),         local: "sessions with tokens that are opened";
    DeviceRefreshes     "device_refreshes"        Device                     60 per secs(30),         local: "exchanges of a device's refresh tokens";
    Refreshes           "refreshes"               Network                   300 per secs(1),          local: "refresh tokens that are shown";
    PasswordChanges     "password_changes"        Device                      5 per secs(720),        local: "changes of a device's password: 10 in any hour";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn rows_are_where_their_limit_says_and_named_once() {
        let mut names = HashSet::new();
        for (at, declared) in DECLARED.iter().enumerate() {
            assert_eq!(declared.limit.index(), at);
            assert!(names.insert(declared.name), "{}", declared.name);
            assert!(declared.burst > 0 && declared.every > Duration::ZERO);
            // Its bucket's name is another one the next day.
            assert!(declared.every <= hours(24), "{}", declared.name);
        }
    }

    #[test]
    fn what_guards_codes_keys_and_lookups_is_counted_for_all_nodes_together() {
        for limit in [
            Limit::FailedLogins,
            Limit::Lookups,
            Limit::KeyFetches,
            Limit::OneTimeKeys,
            Limit::OneTimeKeysOfTarget,
            Limit::CodeTries,
            Limit::CodeOfNumber,
            Limit::CodesOfNumber,
            Limit::Sessions,
            Limit::Registrations,
            Limit::Links,
        ] {
            assert!(limit.declared().shared, "{limit:?}");
        }
    }
}
