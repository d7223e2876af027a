//! Whether bytes that must look random do.
//!
//! Pearson's chi-squared over the 256 byte values, with 255 degrees of freedom: random bytes give 255 on average, and more
//! than 512 less than once in 10^12 values, whatever their length above [`ENOUGH`]. Text in any encoding, padding and
//! structure give thousands. Values that are too short for that are taken together, column by column, and so many bytes
//! that the measure settles must also have 7.99 bits each.

/// How often each byte value came.
#[derive(Clone)]
pub(super) struct Histogram {
    counts: [u64; 256],
    total: u64,
}

impl Histogram {
    /// Of nothing.
    pub(super) const fn new() -> Self {
        Self {
            counts: [0; 256],
            total: 0,
        }
    }

    /// Of one value.
    pub(super) fn of(bytes: &[u8]) -> Self {
        // Four counters side by side: equal bytes in a row do not wait for each other.
        let mut lanes = [[0_u32; 256]; 4];
        for chunk in bytes.chunks(u32::MAX as usize) {
            let (fours, rest) = chunk.as_chunks::<4>();
            for four in fours {
                for (lane, byte) in lanes.iter_mut().zip(four) {
                    lane[usize::from(*byte)] += 1;
                }
            }
            for byte in rest {
                lanes[0][usize::from(*byte)] += 1;
            }
        }
        let mut histogram = Self::new();
        for (value, count) in histogram.counts.iter_mut().enumerate() {
            *count = lanes.iter().map(|lane| u64::from(lane[value])).sum();
        }
        histogram.total = bytes.len() as u64;
        histogram
    }

    /// Takes another's bytes in.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.total += other.total;
    }

    /// Pearson's chi-squared against equal frequency.
    pub(super) fn chi_squared(&self) -> f64 {
        let expected = as_f64(self.total) / 256.0;
        let squares = self.counts.iter().map(|count| (as_f64(*count) - expected).powi(2));
        squares.sum::<f64>() / expected.max(f64::MIN_POSITIVE)
    }

    /// Shannon entropy.
    pub(super) fn bits_per_byte(&self) -> f64 {
        let total = as_f64(self.total).max(1.0);
        let shares = self
            .counts
            .iter()
            .filter(|count| **count > 0)
            .map(|count| as_f64(*count) / total);
        -shares.map(|share| share * share.log2()).sum::<f64>()
    }

    /// Whether so many bytes tell anything.
    fn is_enough(&self) -> bool {
        self.total >= ENOUGH
    }

    /// Whether these cannot be random bytes. `false` if there are too few to tell.
    pub(super) fn is_low(&self) -> bool {
        // With gigabytes the smallest unevenness of honest ciphertext's surroundings would count; 7.99 bits decide then.
        let skewed = self.is_enough() && self.total < MANY && self.chi_squared() > MAX_CHI_SQUARED;
        skewed || (self.total >= MANY && self.bits_per_byte() < MIN_BITS)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a database has fewer than 2^52 bytes")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// Two of each byte value.
const ENOUGH: u64 = 512;
/// So many that random bytes miss 7.99 bits by chance less than once in 10^60 times.
const MANY: u64 = 65_536;
const MAX_CHI_SQUARED: f64 = 512.0;
const MIN_BITS: f64 = 7.99;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::testing::Random;

    #[test]
    fn random_bytes_pass_at_every_length() {
        let mut random = Random::new(4);
        let mut all = Histogram::new();
        for row in 0..20_000_usize {
            let histogram = Histogram::of(&random.bytes(512 + row % 800));
            assert!(!histogram.is_low(), "{}", histogram.chi_squared());
            all.add(&histogram);
        }
        assert!(!all.is_low() && all.bits_per_byte() > 7.9999, "{}", all.bits_per_byte());
    }

    #[test]
    fn chance_stays_far_from_the_limit() {
        // The mean of chi-squared is 255 and its deviation 22.6; were the limit near, this would see it.
        let mut random = Random::new(5);
        let worst = (0..20_000).map(|_| Histogram::of(&random.bytes(512)).chi_squared());
        assert!(worst.fold(0.0, f64::max) < 400.0);
    }

    #[test]
    fn text_padding_and_encodings_are_low() {
        let mut random = Random::new(6);
        let text = "All that is said here is said to whom it concerns. ".repeat(12);
        let base64: Vec<u8> = random.bytes(600).iter().map(|byte| b'A' + byte % 26).collect();
        let padded = [&random.bytes(500)[..], &[0; 100]].concat();
        let seven_bits: Vec<u8> = random.bytes(1024).iter().map(|byte| byte & 0x7f).collect();
        for value in [text.as_bytes(), &base64, &padded, &seven_bits] {
            assert!(Histogram::of(value).is_low());
        }
        // One byte value in four is missing: hardly to be seen in a short value, plainly in many.
        let mut many = Histogram::new();
        for _ in 0..2_000 {
            many.add(&Histogram::of(
                &random.bytes(40).iter().map(|byte| byte % 192).collect::<Vec<_>>(),
            ));
        }
        assert!(many.is_low(), "{}", many.bits_per_byte());
    }

    #[test]
    fn too_few_bytes_tell_nothing() {
        assert!(!Histogram::of(&[0; 511]).is_low() && Histogram::of(&[0; 512]).is_low());
        assert!(!Histogram::new().is_low());
    }
}
