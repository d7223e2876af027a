//! A batch of claims of prekey bundles: what it asks of the database, and who is given which of the keys that were taken,
//! the same for both backends.
//!
//! The outcome is that of the claims one after the other. Keys are taken from the front and the reserve is at the end, so
//! claims of one device differ only in the place at which it is their turn.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use keys_schema::IdentityKey;
use uuid::Uuid;

use super::StorageError;
use super::rows::{
    AddressedRow, EcRow, KyberRow, SignedRow, bundle, covers, identity, kind_column, reserve_column, stock,
};
use crate::domain::{Aci, Allowance, BundleSelector, IdentityKind, SignedKeys, Stock, Take, TakenBundles};

/// One outcome per claim, in their order: its bundles, or why it failed while others did not; `None` if the account or the
/// selected device does not exist.
pub type Takings = Vec<Result<Option<TakenBundles>, StorageError>>;

/// A batch on its way through a transaction.
pub(super) struct Taking<'a> {
    takes: &'a [Take],
    /// By account and namespace, each once.
    targets: Vec<Target>,
    /// The target of each claim.
    of: Vec<usize>,
}

/// An account's namespace, with those of its devices that were asked for.
struct Target {
    aci: Aci,
    kind: IdentityKind,
    devices: BTreeMap<i16, Found>,
}

struct Found {
    device: AddressedRow,
    /// Without both of them nothing of the device is handed out.
    keys: Result<Option<SignedKeys>, StorageError>,
    ec: Pile<EcRow>,
    kyber: Pile<KyberRow>,
}

/// The one-time keys of one kind.
struct Pile<K> {
    /// The places of the first and the last key before the batch.
    ends: Option<(i32, i32)>,
    /// How many the batch takes of them.
    wanted: i32,
    /// What was taken and is not handed out yet, with its place.
    taken: Vec<(i32, K)>,
}

/// Devices of a target that are asked for, and how many keys of each kind at most.
pub(super) struct Asked {
    /// Its place among the targets.
    pub(super) target: usize,
    /// `None` for every device. What is asked of one device is added to that.
    pub(super) device: Option<i16>,
    pub(super) keys: i32,
}

/// A row of keys that are to be taken: target, namespace, device, first and last place.
pub(super) type Range = [i64; 5];

impl<'a> Taking<'a> {
    pub(super) fn new(takes: &'a [Take]) -> Self {
        let name = |take: &Take| (*take.aci.as_uuid(), kind_column(take.kind));
        let mut named: Vec<_> = takes.iter().map(|take| (name(take), take)).collect();
        named.sort_by_key(|(name, _)| *name);
        named.dedup_by_key(|(name, _)| *name);
        let place = |take| named.binary_search_by_key(&name(take), |(name, _)| *name);
        // Each of them is there.
        let of = takes.iter().map(|take| place(take).unwrap_or_else(|place| place));
        Self {
            takes,
            of: of.collect(),
            targets: named
                .iter()
                .map(|(_, take)| Target {
                    aci: take.aci,
                    kind: take.kind,
                    devices: BTreeMap::new(),
                })
                .collect(),
        }
    }

    /// The targets: account, and namespace as a column holds it.
    pub(super) fn targets(&self) -> impl Iterator<Item = (Uuid, i16)> {
        let target = |target: &Target| (*target.aci.as_uuid(), kind_column(target.kind));
        self.targets.iter().map(target)
    }

    /// Where among the targets that one is.
    pub(super) fn target(&self, aci: Uuid, kind: i16) -> Option<usize> {
        let name = |target: &Target| (*target.aci.as_uuid(), kind_column(target.kind));
        self.targets.binary_search_by_key(&(aci, kind), name).ok()
    }

    /// What is asked, each device of a target once. Every device of it comes before single ones.
    pub(super) fn asked(&self) -> Vec<Asked> {
        let mut asked = BTreeMap::new();
        for (take, target) in self.takes.iter().zip(&self.of) {
            let mut add = |device, keys| *asked.entry((*target, device)).or_insert(0) += keys;
            match (take.selector, &take.allowance.devices) {
                (BundleSelector::One(device), _) => {
                    add(Some(i16::from(device.get())), i32::from(take.allowance.covers(device)));
                }
                (BundleSelector::All, None) => add(None, 1),
                (BundleSelector::All, Some(devices)) => {
                    add(None, 0);
                    let devices: BTreeSet<_> = devices.iter().map(|device| i16::from(device.get())).collect();
                    devices.into_iter().for_each(|device| add(Some(device), 1));
                }
            }
        }
        let asked = asked
            .into_iter()
            .map(|((target, device), keys)| Asked { target, device, keys });
        asked.collect()
    }

    /// Of each target, how many keys must stay behind: the same for all claims of a [round](rounds) that take any.
    pub(super) fn reserves(&self) -> Vec<i32> {
        let mut reserves = vec![0; self.targets.len()];
        for (take, target) in self.takes.iter().zip(&self.of) {
            if takes_any(take) {
                reserves[*target] = reserve_column(&take.allowance);
            }
        }
        reserves
    }

    /// A device that exists, with the places of its first and last keys of each kind: EC, then Kyber.
    pub(super) fn found(
        &mut self,
        target: usize,
        device: AddressedRow,
        keys: SignedRow,
        [ec, kyber]: [Option<(i32, i32)>; 2],
    ) {
        let found = Found {
            keys: keys.into_keys(),
            ec: Pile::new(ec),
            kyber: Pile::new(kyber),
            device,
        };
        if let Some(target) = self.targets.get_mut(target) {
            target.devices.insert(found.device.device_id, found);
        }
    }

    /// The keys that the claims take if the places of each device follow one another, EC, then Kyber. Without gaps between
    /// places, which only damage makes, none of them is left over.
    pub(super) fn ranges(&mut self) -> [Vec<Range>; 2] {
        for (take, target) in self.takes.iter().zip(&self.of) {
            let target = &mut self.targets[*target];
            // It will be answered with an error, and uses nothing up.
            if identity_of(target).is_some_and(|identity| identity.is_err())
                || selected(target, take).any(|found| found.keys.is_err())
            {
                continue;
            }
            let reserve = reserve_column(&take.allowance);
            for found in selected(target, take) {
                if matches!(found.keys, Ok(Some(_))) && covers(&take.allowance, found.device.device_id) {
                    found.ec.want(reserve);
                    found.kyber.want(reserve);
                }
            }
        }
        let mut ranges = [Vec::new(), Vec::new()];
        for (number, target) in (0..).zip(&self.targets) {
            for (device, found) in &target.devices {
                for (ranges, range) in ranges.iter_mut().zip([found.ec.range(), found.kyber.range()]) {
                    let kind = i64::from(kind_column(target.kind));
                    ranges
                        .extend(range.map(|(first, last)| {
                            [number, kind, i64::from(*device), i64::from(first), i64::from(last)]
                        }));
                }
            }
        }
        ranges
    }

    /// An EC key that was taken from a device.
    pub(super) fn took_ec(&mut self, target: usize, device: i16, place: i32, key: EcRow) {
        if let Some(found) = self
            .targets
            .get_mut(target)
            .and_then(|target| target.devices.get_mut(&device))
        {
            found.ec.taken.push((place, key));
        }
    }

    /// A Kyber key that was taken from a device.
    pub(super) fn took_kyber(&mut self, target: usize, device: i16, place: i32, key: KyberRow) {
        if let Some(found) = self
            .targets
            .get_mut(target)
            .and_then(|target| target.devices.get_mut(&device))
        {
            found.kyber.taken.push((place, key));
        }
    }

    /// Gives each claim its keys. To be answered when they are gone from storage for good.
    pub(super) fn into_takings(mut self) -> Takings {
        for found in self.targets.iter_mut().flat_map(|target| target.devices.values_mut()) {
            // The front is at the end, where it comes off.
            found.ec.taken.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
            found.kyber.taken.sort_by_key(|(place, _)| std::cmp::Reverse(*place));
        }
        let answers = self.takes.iter().zip(&self.of);
        answers
            .map(|(take, target)| answer(&mut self.targets[*target], take))
            .collect()
    }
}

impl<K> Pile<K> {
    fn new(ends: Option<(i32, i32)>) -> Self {
        Self {
            ends,
            wanted: 0,
            taken: Vec::new(),
        }
    }

    /// One more, unless it belongs to the reserve.
    fn want(&mut self, reserve: i32) {
        if let Some((first, last)) = self.ends
            && first.saturating_add(self.wanted) <= last.saturating_sub(reserve)
        {
            self.wanted += 1;
        }
    }

    fn range(&self) -> Option<(i32, i32)> {
        let (first, _) = self.ends?;
        (self.wanted > 0).then(|| (first, first.saturating_add(self.wanted - 1)))
    }

    /// The front one, unless it belongs to the reserve, and what there is to say of the stock with or without it.
    fn take(&mut self, allowance: &Allowance, device: i16) -> (Option<K>, Stock) {
        let last = self.ends.map(|(_, last)| last);
        let edge = last.map(|last| last.saturating_sub(reserve_column(allowance)));
        let may_go = covers(allowance, device);
        let taken = self
            .taken
            .pop_if(|(place, _)| may_go && edge.is_some_and(|edge| *place <= edge));
        let (place, key) = taken.unzip();
        if place.is_some() && place == last {
            // Whoever comes after that finds none.
            self.ends = None;
        }
        (key, stock(allowance, device, place, last))
    }
}

/// The batch in parts, one to be taken after the other, in each of which the same reserve holds for all claims of a target:
/// what such a part takes of a device is a number of keys, whoever of it gets which.
pub(super) fn rounds(takes: &[Take]) -> Vec<&[Take]> {
    let (mut rounds, mut rest) = (Vec::new(), takes);
    while !rest.is_empty() {
        let mut reserves = HashMap::new();
        let differs = |take: &Take| {
            let target = (take.aci, kind_column(take.kind));
            takes_any(take) && *reserves.entry(target).or_insert(take.allowance.reserve) != take.allowance.reserve
        };
        let end = rest.iter().position(differs).unwrap_or(rest.len());
        let (round, others) = rest.split_at(end);
        rounds.push(round);
        rest = others;
    }
    rounds
}

/// Whether it may take keys at all.
fn takes_any(take: &Take) -> bool {
    take.allowance
        .devices
        .as_ref()
        .is_none_or(|devices| !devices.is_empty())
}

/// The devices that a claim selects.
fn selected<'t>(target: &'t mut Target, take: &Take) -> impl Iterator<Item = &'t mut Found> {
    let devices = match take.selector {
        BundleSelector::All => i16::MIN..=i16::MAX,
        BundleSelector::One(device) => i16::from(device.get())..=i16::from(device.get()),
    };
    target.devices.range_mut(devices).map(|(_, found)| found)
}

/// The identity key of a target that exists.
fn identity_of(target: &Target) -> Option<Result<IdentityKey, StorageError>> {
    let (_, found) = target.devices.first_key_value()?;
    Some(identity(&found.device.identity, target.kind))
}

fn answer(target: &mut Target, take: &Take) -> Result<Option<TakenBundles>, StorageError> {
    if selected(target, take).next().is_none() {
        return Ok(None);
    }
    let Some(identity) = identity_of(target).transpose()? else {
        return Ok(None);
    };
    for found in selected(target, take) {
        if let Err(error) = &found.keys {
            return Err(same(error));
        }
    }
    let allowance = &take.allowance;
    let mut devices = Vec::new();
    for found in selected(target, take) {
        let Ok(Some(keys)) = &found.keys else { continue };
        let device = found.device.device_id;
        let (ec, ec_stock) = found.ec.take(allowance, device);
        let (kyber, kyber_stock) = found.kyber.take(allowance, device);
        devices.push(bundle(&found.device, keys, ec, kyber, [ec_stock, kyber_stock])?);
    }
    Ok(Some(TakenBundles { identity, devices }))
}

/// What failed for one claim fails for the next in the same way.
fn same(error: &StorageError) -> StorageError {
    match error {
        StorageError::Corrupt { table, column } => StorageError::Corrupt { table, column },
        StorageError::Unavailable { kind, .. } => StorageError::Unavailable {
            kind: kind.clone(),
            source: "it failed for another claim".into(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::DeviceId;
    use crate::storage::conformance::fixtures::claim;

    fn reserving(n: u8, reserve: u32, devices: Option<Vec<DeviceId>>) -> Take {
        Take {
            allowance: Allowance { devices, reserve },
            ..claim(n)
        }
    }

    #[test]
    fn a_round_has_one_reserve_for_an_account_and_whoever_takes_nothing_does_not_count() {
        let takes = [
            reserving(1, 20, None),
            reserving(2, 0, None),
            reserving(1, 0, Some(vec![])),
            reserving(1, 20, None),
            reserving(1, 0, None),
            reserving(2, 0, None),
            reserving(2, 20, None),
        ];
        let lengths = |takes| rounds(takes).iter().map(|round| round.len()).collect::<Vec<_>>();
        assert_eq!(lengths(&takes), [4, 2, 1]);
        assert_eq!(Taking::new(&takes[..4]).reserves(), [20, 0]);
        assert!(rounds(&[]).is_empty());
        // Another identity has keys of its own.
        let mut other = reserving(1, 0, None);
        other.kind = IdentityKind::Pni;
        assert_eq!(lengths(&[reserving(1, 20, None), other]), [2]);
    }

    #[test]
    fn a_device_is_asked_for_as_many_keys_as_may_be_taken_of_it() {
        let one = |id: u64| DeviceId::new(id).unwrap();
        let mut single = claim(1);
        single.selector = BundleSelector::One(one(3));
        let mut refused = single.clone();
        refused.allowance.devices = Some(vec![one(1)]);
        let takes = [
            claim(1),
            single,
            refused,
            reserving(1, 0, Some(vec![one(2), one(2)])),
            claim(2),
        ];
        let asked = Taking::new(&takes).asked();
        let asked: Vec<_> = asked
            .iter()
            .map(|asked| (asked.target, asked.device, asked.keys))
            .collect();
        assert_eq!(asked, [(0, None, 1), (0, Some(2), 1), (0, Some(3), 1), (1, None, 1)]);
    }
}
