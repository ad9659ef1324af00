//! Addresses as the kernel has them: the raw words that are on the wire.

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

use super::{Prefix4, Prefix6};

/// An IPv4 address as one word.
#[must_use]
pub fn addr4(addr: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(addr.octets())
}

/// An IPv6 address as four words.
#[must_use]
pub fn addr6(addr: Ipv6Addr) -> [u32; 4] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = addr.octets();
    [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]].map(u32::from_ne_bytes)
}

/// The address that a word stands for.
#[must_use]
pub fn ipv4(word: u32) -> Ipv4Addr {
    Ipv4Addr::from(word.to_ne_bytes())
}

/// The address that four words stand for.
#[must_use]
pub fn ipv6(words: [u32; 4]) -> Ipv6Addr {
    let number = words
        .iter()
        .fold(0, |sum, word| (sum << 32) | u128::from(u32::from_be(*word)));
    Ipv6Addr::from(number)
}

/// A prefix, host bits cleared.
#[must_use]
pub fn prefix4(net: Ipv4Net) -> Prefix4 {
    (addr4(net.network()), net.prefix_len())
}

/// A prefix, host bits cleared.
#[must_use]
pub fn prefix6(net: Ipv6Net) -> Prefix6 {
    (addr6(net.network()), net.prefix_len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_addresses_round_trip() {
        let four: Ipv4Addr = "10.1.2.3".parse().unwrap();
        assert_eq!(addr4(four).to_ne_bytes(), [10, 1, 2, 3]);
        assert_eq!(ipv4(addr4(four)), four);
        let six: Ipv6Addr = "fd00:1:2:3:4:5:6:7".parse().unwrap();
        assert_eq!(addr6(six)[0].to_ne_bytes(), [0xfd, 0, 0, 1]);
        assert_eq!(ipv6(addr6(six)), six);
    }
}
