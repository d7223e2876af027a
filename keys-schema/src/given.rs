//! Randomness as an argument, for a library that wants a generator.

use std::convert::Infallible;

use hpke::rand_core::{TryCryptoRng, TryRng};

/// Randomness that the caller has drawn. An encapsulation takes exactly the 32 bytes of a private key.
pub(crate) struct Given<'a>(pub(crate) &'a [u8]);

impl TryRng for Given<'_> {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.try_fill_bytes(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), Infallible> {
        let (taken, left) = self
            .0
            .split_at_checked(destination.len())
            .expect("one encapsulation takes 32 bytes");
        destination.copy_from_slice(taken);
        self.0 = left;
        Ok(())
    }
}

impl TryCryptoRng for Given<'_> {}
