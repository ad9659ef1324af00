//! Pseudo-random numbers that are the same everywhere, for the generators only.

/// A small generator of pseudo-random numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
    /// What comes before them, the last first.
    script: Vec<u8>,
}

impl Rng {
    /// The same seed gives the same numbers.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        // Spreads close seeds apart; the state must not be 0.
        Self {
            state: (seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1,
            script: Vec::new(),
        }
    }

    /// The first choices are made by a script, a byte each or, among more than 256, two; what comes after its end as
    /// by [`Self::new`]. A fuzzer steers a generator with it.
    #[must_use]
    pub fn scripted(seed: u64, script: &[u8]) -> Self {
        Self {
            script: script.iter().rev().copied().collect(),
            ..Self::new(seed)
        }
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`; 0 if that is 0.
    pub fn below(&mut self, limit: usize) -> usize {
        if let Some(low) = self.script.pop() {
            let high = if limit > 256 { self.script.pop() } else { None };
            return usize::from(u16::from_be_bytes([high.unwrap_or(0), low])) % limit.max(1);
        }
        let limit = limit.max(1) as u64;
        usize::try_from((self.next_u64() >> 16) % limit).unwrap_or_default()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        if let Some(byte) = self.script.pop() {
            return byte;
        }
        let [_, _, byte, ..] = self.next_u64().to_be_bytes();
        byte
    }

    /// A port.
    pub fn port(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// True in so many of a hundred cases.
    pub fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// Some value in so many of a hundred cases.
    pub fn maybe<T>(&mut self, percent: usize, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.chance(percent).then(|| value(self))
    }

    /// One of several; `None` if there are none.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }

    /// One of several.
    pub fn one_of<T: Copy, const N: usize>(&mut self, of: [T; N]) -> T {
        const { assert!(N > 0) };
        of[self.below(N)]
    }

    /// Shuffles.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for end in (1..items.len()).rev() {
            items.swap(end, self.below(end + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_comes_first_and_changes_nothing_after_it() {
        let mut rng = Rng::scripted(5, &[7, 1, 2, 30]);
        assert_eq!((rng.below(4), rng.below(1000), rng.byte()), (3, 513, 30));
        let mut plain = Rng::new(5);
        for _ in 0..100 {
            assert_eq!(rng.below(1000), plain.below(1000));
        }
    }
}
