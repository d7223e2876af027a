//! How old a database is, so that an older copy of it in its place is noticed.

/// What a database says of its own age.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Age {
    /// Which database it is; copies have the same.
    pub database: [u8; 16],
    /// How often it was put back.
    pub epoch: u64,
    /// How often it was looked at since it was made: each start counts, and each minute of a running node.
    pub generation: u64,
}

impl Age {
    /// Whether this is an older copy of what was `seen`. What was put back since then is not behind, however small its count
    /// of looks.
    pub fn is_behind(&self, seen: &Self) -> bool {
        self.database == seen.database && (self.epoch, self.generation) < (seen.epoch, seen.generation)
    }
}

/// By what it is known that a database was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// The operator said so.
    Told,
    /// It is a file that `blind-relay backup` wrote.
    Copy,
    /// It is older than this node has seen it.
    Behind,
    /// It was read in from a dump: the database server gave it other numbers than it had.
    Elsewhere,
}

/// What was made invalid because a database was put back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Invalidated {
    /// One-time keys.
    pub keys: u64,
    /// Sessions of refresh tokens.
    pub tokens: u64,
    /// Verification sessions.
    pub sessions: u64,
    /// Offers to link a device.
    pub offers: u64,
    /// Invites.
    pub invites: u64,
}

/// A database after one more look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aged {
    /// How old it is now.
    pub age: Age,
    /// Whether it was put back since the look before.
    pub restored: Option<Restored>,
    /// What became invalid by that.
    pub invalidated: Invalidated,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn age(database: u8, epoch: u64, generation: u64) -> Age {
        Age {
            database: [database; 16],
            epoch,
            generation,
        }
    }

    #[test]
    fn an_older_copy_is_behind_unless_it_was_put_back_since() {
        let seen = age(1, 2, 50);
        for (other, behind) in [
            (age(1, 2, 50), false),
            (age(1, 2, 51), false),
            (age(1, 2, 49), true),
            (age(1, 3, 1), false),
            (age(1, 1, 99), true),
            (age(2, 0, 0), false),
        ] {
            assert_eq!(other.is_behind(&seen), behind, "{other:?}");
        }
    }
}
