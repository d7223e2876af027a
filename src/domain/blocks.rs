//! Whom an account does not want to hear from.

/// An id that an account has blocked: a keyed hash under a key of that account, which is not in the database. Whoever reads
/// it cannot test whom it means, and the same id has another tag in every list.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlockTag(pub [u8; BlockTag::BYTES]);

impl BlockTag {
    /// Of a stored tag.
    pub const BYTES: usize = 16;
}

/// Everyone whom an account has blocked. In the order of the tags, so that nothing tells who was blocked first.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Blocks(Vec<BlockTag>);

impl Blocks {
    /// The most ids that an account may block.
    pub const MAX: usize = 1_000;

    /// Reads what [`Self::to_bytes`] wrote; `None` if nobody wrote it so.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (tags, rest) = bytes.as_chunks();
        let tags: Vec<_> = tags.iter().copied().map(BlockTag).collect();
        let right = rest.is_empty() && tags.len() <= Self::MAX && tags.is_sorted_by(|one, next| one < next);
        right.then_some(Self(tags))
    }

    /// The form in which they are stored: nothing, if there are none.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| self.0.iter().flat_map(|tag| tag.0).collect())
    }

    /// Whether nobody is blocked.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many ids are blocked.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether that id is blocked.
    pub fn contains(&self, tag: &BlockTag) -> bool {
        self.0.binary_search(tag).is_ok()
    }

    /// As they are after the change; `None` if they would be too many.
    pub fn changed(&self, change: &BlockChange) -> Option<Self> {
        let mut tags = self.0.clone();
        match change {
            BlockChange::Add(tag) => match tags.binary_search(tag) {
                Ok(_) => {}
                Err(_) if tags.len() >= Self::MAX => return None,
                Err(place) => tags.insert(place, *tag),
            },
            BlockChange::Remove(tag) => {
                if let Ok(place) = tags.binary_search(tag) {
                    tags.remove(place);
                }
            }
            BlockChange::Clear => tags.clear(),
        }
        Some(Self(tags))
    }
}

/// What an account changes about whom it has blocked.
#[derive(Clone, Copy)]
pub enum BlockChange {
    /// One more. One who is blocked already stays so.
    Add(BlockTag),
    /// One less. One who is not blocked is no error.
    Remove(BlockTag),
    /// Nobody is blocked any more.
    Clear,
}

/// What became of a [`BlockChange`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlocksChanged {
    /// It is done.
    Done,
    /// There are [`Blocks::MAX`] already. Nothing was changed.
    TooMany,
    /// The device that asks is gone. Nothing was changed.
    Gone,
}

opaque_debug!(BlockTag, Blocks, BlockChange);

#[cfg(test)]
mod tests {
    use super::*;

    fn tag(n: usize) -> BlockTag {
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&(n as u64).to_be_bytes());
        BlockTag(tag)
    }

    fn blocks(tags: impl IntoIterator<Item = usize>) -> Blocks {
        tags.into_iter().fold(Blocks::default(), |blocks, n| {
            blocks.changed(&BlockChange::Add(tag(n))).unwrap()
        })
    }

    #[test]
    fn what_is_stored_is_the_same_whoever_was_blocked_first() {
        let there = blocks([3, 1, 2, 1]);
        assert_eq!(there.len(), 3);
        assert_eq!(there.to_bytes(), blocks([2, 1, 3]).to_bytes());
        assert!(Blocks::parse(&there.to_bytes().unwrap()) == Some(there.clone()));
        assert!(there.contains(&tag(2)) && !there.contains(&tag(4)));
        let fewer = there.changed(&BlockChange::Remove(tag(2))).unwrap();
        assert!(!fewer.contains(&tag(2)) && fewer.len() == 2);
        assert!(fewer.changed(&BlockChange::Remove(tag(2))) == Some(fewer.clone()));
        let none = fewer.changed(&BlockChange::Clear).unwrap();
        assert!(none.is_empty() && none.to_bytes().is_none());
    }

    #[test]
    fn a_full_list_takes_no_more_and_gives_up_any() {
        let full = blocks(0..Blocks::MAX);
        assert!(full.changed(&BlockChange::Add(tag(Blocks::MAX))).is_none());
        assert!(full.changed(&BlockChange::Add(tag(7))) == Some(full.clone()));
        let fewer = full.changed(&BlockChange::Remove(tag(7))).unwrap();
        assert!(fewer.changed(&BlockChange::Add(tag(Blocks::MAX))).is_some());
    }

    #[test]
    fn what_nobody_wrote_is_not_read() {
        assert!(Blocks::parse(&[]) == Some(Blocks::default()));
        let two = blocks([1, 2]).to_bytes().unwrap();
        let (one, other) = two.split_at(16);
        assert!(Blocks::parse(&two[1..]).is_none(), "cut");
        assert!(Blocks::parse(&[other, one].concat()).is_none(), "out of order");
        assert!(Blocks::parse(&[one, one].concat()).is_none(), "twice");
        let more: Vec<u8> = (0..=Blocks::MAX).flat_map(|n| tag(n).0).collect();
        assert!(Blocks::parse(&more).is_none(), "too many");
    }
}
