//! Names of IP protocols.

/// Those that rules and commands know by name.
pub(super) const NAMES: [(&str, u8); 6] = [
    ("tcp", 6),
    ("udp", 17),
    ("sctp", 132),
    ("icmp", 1),
    ("icmpv6", 58),
    ("udplite", 136),
];

/// A name in any case, or a number.
pub(super) fn parse(text: &str) -> Option<u8> {
    let named = NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
    named.map(|(_, number)| *number).or_else(|| text.parse().ok())
}
