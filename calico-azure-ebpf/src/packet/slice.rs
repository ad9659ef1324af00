//! A frame in memory, for the host: property tests, fuzzing, `explain`.

use core::cell::Cell;

use super::Packet;

/// A frame and where it is.
#[derive(Clone, Debug)]
pub struct SlicePacket<'a> {
    /// The frame, from the Ethernet header on.
    pub bytes: &'a [u8],
    /// Interface that it is handled on.
    pub ifindex: u32,
    /// Interface that it entered by, 0 for none.
    pub ingress_ifindex: u32,
    /// Its mark.
    pub mark: Cell<u32>,
}

impl Packet for SlicePacket<'_> {
    fn len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    fn ethertype(&self) -> u16 {
        match self.bytes.get(12..14) {
            Some(&[high, low]) => u16::from_be_bytes([high, low]),
            _ => 0,
        }
    }

    fn ifindex(&self) -> u32 {
        self.ifindex
    }

    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }

    fn mark(&self) -> u32 {
        self.mark.get()
    }

    fn set_mark(&self, mark: u32) {
        self.mark.set(mark);
    }

    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(N * 4)?)?;
        let mut words = [0; N];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
        }
        Some(words)
    }
}
