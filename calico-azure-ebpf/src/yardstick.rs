//! What benchmarks compare the product with: a linear walk over rules, as a straightforward engine does it. No part of
//! the product; its programs are in an object of their own (`src/bin/yardstick.rs`).

use crate::abi::abi_struct;

abi_struct! {
    /// One rule of the walk, value of `RULES`. All criteria must hold.
    pub struct Rule {
        /// Source network, as on the wire, host bits zero.
        pub net: u32,
        /// Its mask, as on the wire; 0: any source.
        pub mask: u32,
        /// The source must be in this set; 0: no such criterion.
        pub set: u32,
        /// First destination port, host order.
        pub first_port: u16,
        /// Last destination port.
        pub last_port: u16,
        /// IP protocol number; 0: any.
        pub protocol: u16,
        /// 1 allows, 0 denies.
        pub allow: u16,
    }
}

abi_struct! {
    /// What a longest-prefix match of `SETS` looks at, after the prefix length: the set in full, then the address.
    pub struct Member {
        /// The rule's set.
        pub set: u32,
        /// Address, network order.
        pub addr: u32,
    }
}

/// What a rule is asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Source, as on the wire.
    pub src: u32,
    /// Destination port, host order.
    pub dport: u16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Rules that one program looks at before it calls the next: what kernel 5.10 verifies without effort.
pub const PAGE: u32 = 512;
/// The kernel ends a chain of tail calls after 33.
pub const MAX_RULES: u32 = PAGE * 33;

impl Rule {
    /// Whether all criteria but membership in the set hold.
    #[inline(always)]
    #[must_use]
    pub const fn matches(&self, flow: &Flow) -> bool {
        (self.protocol == 0 || self.protocol == flow.protocol as u16)
            && flow.dport >= self.first_port
            && flow.dport <= self.last_port
            && flow.src & self.mask == self.net
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_criterion_can_fail() {
        let [net, src] = [[10, 1, 0, 0], [10, 1, 2, 3]].map(u32::from_ne_bytes);
        let rule = Rule {
            net,
            mask: u32::from_ne_bytes([255, 255, 0, 0]),
            first_port: 80,
            last_port: 81,
            protocol: 6,
            ..Rule::default()
        };
        let flow = Flow {
            src,
            dport: 80,
            protocol: 6,
        };
        assert!(rule.matches(&flow));
        assert!(rule.matches(&Flow { dport: 81, ..flow }));
        for other in [
            Flow { dport: 79, ..flow },
            Flow { dport: 82, ..flow },
            Flow { protocol: 17, ..flow },
            Flow {
                src: u32::from_ne_bytes([10, 2, 2, 3]),
                ..flow
            },
        ] {
            assert!(!rule.matches(&other), "{other:?}");
        }
    }
}
