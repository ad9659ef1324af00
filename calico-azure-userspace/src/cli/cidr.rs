//! CIDRs as flags of commands.

use ipnet::IpNet;

/// An address and a prefix length; else what is expected, in words for clap, which names the flag and what was given.
pub(super) fn parse(text: &str) -> Result<IpNet, String> {
    text.trim().parse().map_err(|_error| {
        "expected an address and a prefix length of at most 32 (IPv4) or 128 (IPv6), such as 10.0.0.0/16 or fd00::/48"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn what_is_no_cidr_is_told_what_one_is() {
        for text in [
            "10.0.0.0/33",
            "10.0.0.0",
            "fd00::/129",
            "10.0.0.0/-1",
            "",
            "ten/8",
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains("at most 32 (IPv4)"), "{text}: {error}");
        }
        assert_eq!(parse(" 10.0.0.0/16"), Ok("10.0.0.0/16".parse().unwrap()));
        assert_eq!(parse("fd00::/48"), Ok("fd00::/48".parse().unwrap()));
    }
}
