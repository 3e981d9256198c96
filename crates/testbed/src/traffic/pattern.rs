//! A byte stream that both ends can compute: every byte follows from the seed and its offset.

/// Size of the blocks that are computed from (seed, offset).
const WORD: u64 = 8;

/// A deterministic pseudo-random stream, at some offset.
#[derive(Debug, Clone)]
pub struct Pattern {
    seed: u64,
    offset: u64,
}

impl Pattern {
    /// The stream of `seed` from its first byte.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { seed, offset: 0 }
    }

    /// How many bytes were taken so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Fills `buf` with the next bytes.
    pub fn fill(&mut self, buf: &mut [u8]) {
        // The rest of a word begun before, whole words, the begin of the last one.
        let begun =
            usize::try_from(self.offset.next_multiple_of(WORD) - self.offset).unwrap_or_default();
        let (head, rest) = buf.split_at_mut(begun.min(buf.len()));
        self.fill_part(head);
        let (words, tail) = rest.as_chunks_mut();
        for word in words {
            *word = self.word().to_le_bytes();
            self.offset += WORD;
        }
        self.fill_part(tail);
    }

    /// Takes `got.len()` bytes and returns where `got` first differs from them: the offset in the stream.
    pub fn differs(&mut self, got: &[u8]) -> Option<u64> {
        let start = self.offset;
        let mut expected = vec![0; got.len()];
        self.fill(&mut expected);
        let at = got.iter().zip(&expected).position(|(a, b)| a != b)?;
        Some(start + at as u64)
    }

    /// Fills a part of the word at the offset.
    fn fill_part(&mut self, part: &mut [u8]) {
        let skip = usize::try_from(self.offset % WORD).unwrap_or_default();
        let word = self.word().to_le_bytes();
        for (byte, next) in part.iter_mut().zip(&word[skip..]) {
            *byte = *next;
        }
        self.offset += part.len() as u64;
    }

    fn word(&self) -> u64 {
        mix(self.seed ^ mix(self.offset / WORD))
    }
}

/// Pseudo-random sizes from a seed, for chunks.
#[derive(Debug, Clone)]
pub(crate) struct Sizes(u64);

impl Sizes {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number in `1..=max`; 1 when `max` is 0.
    pub(crate) fn next(&mut self, max: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        let below = mix(self.0) % (max.max(1) as u64);
        1 + usize::try_from(below).unwrap_or_default()
    }
}

/// The finalizer of splitmix64: a bijection in which every input bit changes half of the output bits.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_do_not_depend_on_the_pieces() {
        let mut whole = [0; 1000];
        Pattern::new(7).fill(&mut whole);
        let mut pieces = [0; 1000];
        let (mut pattern, mut sizes, mut done) = (Pattern::new(7), Sizes::new(3), 0);
        while done < pieces.len() {
            let n = sizes.next(37).min(pieces.len() - done);
            pattern.fill(&mut pieces[done..done + n]);
            done += n;
        }
        assert_eq!(whole, pieces);
    }

    #[test]
    fn difference_is_found_where_it_is() {
        let mut bytes = [0; 100];
        Pattern::new(1).fill(&mut bytes);
        bytes[77] ^= 1;
        let mut pattern = Pattern::new(1);
        assert_eq!(pattern.differs(&bytes[..50]), None);
        assert_eq!(pattern.differs(&bytes[50..]), Some(77));
    }
}
