//! A packet on its way to a socket of the host, as `to_host` sees it: at no interface.

use calico_azure_ebpf::packet::{Packet, SlicePacket};

pub(super) struct Socket<'a>(pub(super) &'a SlicePacket<'a>);

impl Packet for Socket<'_> {
    const AT_INTERFACE: bool = false;

    fn len(&self) -> u32 {
        self.0.len()
    }

    fn ethertype(&self) -> u16 {
        self.0.ethertype()
    }

    fn ifindex(&self) -> u32 {
        self.0.ifindex()
    }

    fn ingress_ifindex(&self) -> u32 {
        self.0.ingress_ifindex()
    }

    fn mark(&self) -> u32 {
        self.0.mark()
    }

    fn set_mark(&self, mark: u32) {
        self.0.set_mark(mark);
    }

    fn words<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        self.0.words(offset)
    }
}
