//! A family's address space cut into spans, and back into CIDRs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, IpSubnets, Ipv4Subnets, Ipv6Subnets};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    pub(super) fn max(self) -> u128 {
        match self {
            Self::V4 => u128::from(u32::MAX),
            Self::V6 => u128::MAX,
        }
    }

    pub(super) fn address(self, number: u128) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX)).into(),
            Self::V6 => Ipv6Addr::from(number).into(),
        }
    }
}

pub(super) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

/// First and last address of a prefix.
pub(super) fn bounds(net: &IpNet) -> (u128, u128) {
    (number(net.network()), number(net.broadcast()))
}

/// Adjacent addresses with something in common, both ends in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span<V> {
    pub(super) first: u128,
    pub(super) last: u128,
    pub(super) value: V,
}

/// The family's addresses in order, each with the value of the longest of the prefixes around it.
pub(super) fn by_longest_prefix<V: Copy>(
    family: Family,
    mut prefixes: Vec<(u128, u128, V)>,
    default: V,
) -> Vec<Span<V>> {
    // Of prefixes with one beginning the wider first: those around come before those inside.
    prefixes.sort_by_key(|(first, last, _)| (*first, u128::MAX - *last));
    let mut spans = Vec::with_capacity(prefixes.len() * 2 + 1);
    let mut around = vec![(family.max(), default)];
    // The next address without a span; `None` after the last.
    let mut next = Some(0);
    for (first, last, value) in prefixes {
        while around.len() > 1 && around.last().is_some_and(|(end, _)| *end < first) {
            close(&mut spans, &mut around, &mut next);
        }
        if let (Some(start), Some((_, value)), Some(end)) = (next, around.last(), first.checked_sub(1))
            && start <= end
        {
            spans.push(Span {
                first: start,
                last: end,
                value: *value,
            });
        }
        next = Some(first);
        around.push((last, value));
    }
    while !around.is_empty() {
        close(&mut spans, &mut around, &mut next);
    }
    spans
}

/// Ends the innermost prefix.
fn close<V: Copy>(spans: &mut Vec<Span<V>>, around: &mut Vec<(u128, V)>, next: &mut Option<u128>) {
    let Some((last, value)) = around.pop() else { return };
    if let Some(first) = next.filter(|first| *first <= last) {
        spans.push(Span { first, last, value });
        *next = last.checked_add(1);
    }
}

/// Where any of the prefixes begins or ends there is a cut; every span has its place as its value.
pub(super) fn cut_at<'n>(family: Family, nets: impl Iterator<Item = &'n IpNet>) -> Vec<Span<usize>> {
    let mut starts = vec![0];
    for net in nets.filter(|net| Family::of(net.network()) == family) {
        let (first, last) = bounds(net);
        starts.push(first);
        starts.extend(last.checked_add(1).filter(|start| *start <= family.max()));
    }
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([family.max()]);
    let spans = starts.iter().zip(ends).enumerate();
    let spans = spans.map(|(value, (first, last))| Span {
        first: *first,
        last,
        value,
    });
    spans.collect()
}

/// Joins adjacent spans with one value.
pub(super) fn joined<V: PartialEq>(spans: impl IntoIterator<Item = Span<V>>) -> Vec<Span<V>> {
    let mut joined: Vec<Span<V>> = Vec::new();
    for span in spans {
        match joined.last_mut() {
            Some(previous)
                if previous.value == span.value && previous.last.checked_add(1) == Some(span.first) =>
            {
                previous.last = span.last;
            }
            _ => joined.push(span),
        }
    }
    joined
}

/// The fewest prefixes that cover the addresses from `first` to `last` and no others.
pub(super) fn nets(family: Family, first: u128, last: u128) -> impl Iterator<Item = IpNet> {
    match (family.address(first), family.address(last)) {
        (IpAddr::V4(first), IpAddr::V4(last)) => IpSubnets::from(Ipv4Subnets::new(first, last, 0)),
        (IpAddr::V6(first), IpAddr::V6(last)) => IpSubnets::from(Ipv6Subnets::new(first, last, 0)),
        // `address` gives addresses of its own family.
        _ => IpSubnets::from(Ipv4Subnets::new(Ipv4Addr::BROADCAST, Ipv4Addr::UNSPECIFIED, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::generate::Rng;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    fn shown<V: std::fmt::Debug>(family: Family, spans: &[Span<V>]) -> Vec<String> {
        let show = |span: &Span<V>| {
            let ends = [span.first, span.last].map(|end| family.address(end).to_string());
            format!("{} {:?}", ends.join("-"), span.value)
        };
        spans.iter().map(show).collect()
    }

    #[test]
    fn the_longest_prefix_decides() {
        let prefixes = [
            ("10.0.0.0/8", 1),
            ("10.0.0.0/9", 2),
            ("10.255.255.255/32", 3),
            ("255.0.0.0/8", 4),
        ];
        let prefixes = prefixes.map(|(text, value)| {
            let (first, last) = bounds(&net(text));
            (first, last, value)
        });
        let spans = by_longest_prefix(Family::V4, prefixes.into(), 0);
        let expected = [
            "0.0.0.0-9.255.255.255 0",
            "10.0.0.0-10.127.255.255 2",
            "10.128.0.0-10.255.255.254 1",
            "10.255.255.255-10.255.255.255 3",
            "11.0.0.0-254.255.255.255 0",
            "255.0.0.0-255.255.255.255 4",
        ];
        assert_eq!(shown(Family::V4, &spans), expected);
        let all = by_longest_prefix(Family::V6, vec![(0, u128::MAX, 1), (u128::MAX, u128::MAX, 2)], 0);
        let expected = [
            "::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe 1",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 2",
        ];
        assert_eq!(shown(Family::V6, &all), expected);
    }

    #[test]
    fn every_address_is_in_one_span_with_the_value_of_its_longest_prefix() {
        let mut rng = Rng::new(7);
        for _ in 0..200 {
            let mut nets: Vec<IpNet> = (0..rng.below(12))
                .map(|_| {
                    let address = u32::from_be_bytes([rng.byte() & 3, rng.byte() & 3, 0, rng.byte()]);
                    let len = rng.one_of([0, 1, 6, 7, 8, 16, 24, 30, 31, 32]);
                    IpNet::new(Ipv4Addr::from(address).into(), len).unwrap().trunc()
                })
                .collect();
            nets.sort_unstable();
            nets.dedup();
            let prefixes = nets
                .iter()
                .map(|net| (bounds(net).0, bounds(net).1, Some(*net)))
                .collect();
            let spans = by_longest_prefix(Family::V4, prefixes, None);
            let mut next = 0;
            for span in &spans {
                assert_eq!(span.first, next);
                for end in [span.first, span.last] {
                    let address = Family::V4.address(end);
                    let longest = nets
                        .iter()
                        .filter(|net| net.contains(&address))
                        .max_by_key(|net| net.prefix_len());
                    assert_eq!(span.value.as_ref(), longest, "{address} of {nets:?}");
                }
                next = span.last + 1;
            }
            assert_eq!(next, u128::from(u32::MAX) + 1);
            let cuts = cut_at(Family::V4, nets.iter());
            assert!(
                joined(spans)
                    .iter()
                    .all(|span| cuts.iter().any(|cut| cut.first == span.first))
            );
        }
    }

    #[test]
    fn spans_become_the_fewest_prefixes() {
        let (first, last) = (
            number("10.0.0.1".parse().unwrap()),
            number("10.0.0.8".parse().unwrap()),
        );
        let found: Vec<String> = nets(Family::V4, first, last).map(|net| net.to_string()).collect();
        assert_eq!(
            found,
            ["10.0.0.1/32", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.8/32"]
        );
        for family in Family::ALL {
            let all: Vec<u8> = nets(family, 0, family.max())
                .map(|net| net.prefix_len())
                .collect();
            assert_eq!(all, [0]);
        }
    }
}
