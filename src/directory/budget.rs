//! Who may be given a one-time key of which device.
//!
//! One-time keys are scarce, and whoever takes them all takes forward secrecy from the next ones who write. So everyone has a
//! budget for each device of somebody else, every device one for all who ask, and the last keys of a stock are for those
//! who show the account's access key, as its contacts can. Who is over a budget is answered all the same, with the keys
//! that are never used up: nobody is kept from writing.
//!
//! This decides; the limits count.

use crate::domain::{Allowance, DeviceId, PreKeyBundle, Stock};

/// What is known of who asks, as far as one-time keys are concerned.
#[derive(Clone, Copy, Debug, Default)]
pub struct Standing {
    /// The account is its own, or its access key was shown: the key itself, also where the account lets in everyone. Whom
    /// everyone may write to is whom it is easiest to take keys from.
    pub shows_access_key: bool,
    /// The account has blocked who asks, who is not to notice.
    pub blocked: bool,
}

/// What the limits say of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// All budgets have room, and it was taken.
    Within,
    /// Who asks has had its share of this device.
    OverRequester,
    /// All together have had their share of this device.
    OverTarget,
}

/// Why a bundle has only keys that are never used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastResort {
    /// The device has no other ones of some kind.
    Stock,
    /// What the device has is kept for those who show the access key.
    Reserve,
    /// Who asks has had its share.
    Requester,
    /// All together have had their share.
    Target,
    /// Who asks is blocked.
    Blocked,
    /// The device is so new that this node does not know it yet, and no budget either.
    Uncounted,
}

impl LastResort {
    /// For metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Reserve => "reserve",
            Self::Requester => "requester",
            Self::Target => "target",
            Self::Blocked => "blocked",
            Self::Uncounted => "uncounted",
        }
    }
}

/// Which keys one request may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// For storage.
    pub allowance: Allowance,
    /// Why the devices of the account are not in it that are not.
    withheld: Vec<(DeviceId, LastResort)>,
}

impl Decision {
    /// Budgets do not count, as the operator has it.
    pub const UNLIMITED: Self = Self {
        allowance: Allowance::EVERYTHING,
        withheld: Vec::new(),
    };

    /// Why the bundle lacks a one-time key, if it does.
    pub fn last_resort(&self, bundle: &PreKeyBundle) -> Option<LastResort> {
        let stocks = [bundle.ec_stock, bundle.kyber_stock];
        if stocks.contains(&Stock::Withheld) {
            let why = self.withheld.iter().find(|(device, _)| *device == bundle.device_id);
            Some(why.map_or(LastResort::Uncounted, |(_, why)| *why))
        } else if stocks.contains(&Stock::Reserved) {
            Some(LastResort::Reserve)
        } else {
            stocks.contains(&Stock::Empty).then_some(LastResort::Stock)
        }
    }
}

/// Decides for the devices that were counted.
pub fn decide(standing: Standing, counted: &[(DeviceId, Counted)]) -> Decision {
    let (mut devices, mut withheld) = (Vec::new(), Vec::new());
    for &(device, counted) in counted {
        let why = match counted {
            _ if standing.blocked => LastResort::Blocked,
            Counted::OverRequester => LastResort::Requester,
            Counted::OverTarget => LastResort::Target,
            Counted::Within => {
                devices.push(device);
                continue;
            }
        };
        withheld.push((device, why));
    }
    let reserve = if standing.shows_access_key { 0 } else { RESERVE };
    Decision {
        allowance: Allowance {
            devices: Some(devices),
            reserve,
        },
        withheld,
    }
}

/// Whether the owner should publish keys: few are left, or others were refused some because of how many ask.
pub fn wants_keys(why: Option<LastResort>, bundle: &PreKeyBundle) -> bool {
    match why {
        Some(LastResort::Stock | LastResort::Reserve | LastResort::Target) => true,
        Some(LastResort::Requester | LastResort::Blocked | LastResort::Uncounted) => false,
        None => [bundle.ec_stock, bundle.kyber_stock]
            .iter()
            .any(|stock| matches!(stock, Stock::Left(left) if *left < LOW)),
    }
}

/// Of each kind, so many keys are for those who show the access key.
pub const RESERVE: u32 = 20;
/// With fewer of a kind, the owner is told.
pub const LOW: u32 = 25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{KyberSource, RegistrationId};
    use crate::storage::conformance::fixtures::{kyber_key, signed_key};

    const ONE: DeviceId = DeviceId::PRIMARY;

    fn two() -> DeviceId {
        DeviceId::new(2).unwrap()
    }

    fn bundle(device_id: DeviceId, ec_stock: Stock, kyber_stock: Stock) -> PreKeyBundle {
        PreKeyBundle {
            device_id,
            registration_id: RegistrationId::new(1).unwrap(),
            signed: signed_key(1, 1),
            one_time: None,
            kyber: kyber_key(1, 1),
            kyber_source: KyberSource::LastResort,
            ec_stock,
            kyber_stock,
        }
    }

    #[test]
    fn each_device_is_decided_by_its_own_budgets() {
        let decision = decide(
            Standing::default(),
            &[(ONE, Counted::OverTarget), (two(), Counted::Within)],
        );
        assert!(!decision.allowance.covers(ONE) && decision.allowance.covers(two()));
        let withheld = |device| decision.last_resort(&bundle(device, Stock::Withheld, Stock::Withheld));
        assert_eq!(withheld(ONE), Some(LastResort::Target));
        assert_eq!(withheld(DeviceId::new(3).unwrap()), Some(LastResort::Uncounted));
        let over = decide(Standing::default(), &[(ONE, Counted::OverRequester)]);
        assert_eq!(
            over.last_resort(&bundle(ONE, Stock::Withheld, Stock::Withheld)),
            Some(LastResort::Requester)
        );
    }

    #[test]
    fn t15_the_last_keys_are_for_those_who_show_the_access_key() {
        let within = [(ONE, Counted::Within)];
        assert_eq!(decide(Standing::default(), &within).allowance.reserve, RESERVE);
        let holder = Standing {
            shows_access_key: true,
            blocked: false,
        };
        assert_eq!(decide(holder, &within).allowance.reserve, 0);
        // The budgets hold for them as well (T16).
        assert!(!decide(holder, &[(ONE, Counted::OverTarget)]).allowance.covers(ONE));
    }

    #[test]
    fn whoever_is_blocked_takes_nothing_though_budgets_have_room() {
        let blocked = Standing {
            shows_access_key: true,
            blocked: true,
        };
        let decision = decide(blocked, &[(ONE, Counted::Within)]);
        assert_eq!(
            decision.last_resort(&bundle(ONE, Stock::Withheld, Stock::Withheld)),
            Some(LastResort::Blocked)
        );
        assert!(!decision.allowance.covers(ONE));
    }

    #[test]
    fn a_bundle_is_last_resort_as_soon_as_one_kind_is_missing_and_the_owner_hears_of_its_own_shortage() {
        let decision = decide(Standing::default(), &[(ONE, Counted::Within)]);
        for (ec, kyber, why, wants) in [
            (Stock::Left(LOW), Stock::Left(LOW), None, false),
            (Stock::Left(LOW - 1), Stock::Left(LOW), None, true),
            (Stock::Left(LOW), Stock::Left(0), None, true),
            (Stock::Left(LOW), Stock::Empty, Some(LastResort::Stock), true),
            (Stock::Reserved, Stock::Empty, Some(LastResort::Reserve), true),
        ] {
            let bundle = bundle(ONE, ec, kyber);
            assert_eq!(decision.last_resort(&bundle), why, "{ec:?} {kyber:?}");
            assert_eq!(wants_keys(why, &bundle), wants, "{ec:?} {kyber:?}");
        }
        let refused = bundle(ONE, Stock::Withheld, Stock::Withheld);
        assert!(wants_keys(Some(LastResort::Target), &refused));
        // What one may not have says nothing about the stock.
        assert!(!wants_keys(Some(LastResort::Requester), &refused));
        assert!(!wants_keys(Some(LastResort::Blocked), &refused));
    }
}
