//! Which bits of packets' marks nftables' rules (iptables-nft's among them) match or write, from the kernel's own list. Reads only.
//! Only `agent::preflight` uses this.

use std::collections::BTreeMap;
use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

/// A rule that looks at marks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MarkRule {
    /// Table and chain.
    pub place: String,
    /// Bits that it compares.
    pub matched: u32,
    /// Bits that it writes.
    pub written: u32,
}

/// `NFNL_SUBSYS_NFTABLES`, with `NFT_MSG_GETRULE` and `NFT_MSG_NEWRULE` (linux/netfilter/nf_tables.h).
const GET_RULE: u16 = (10 << 8) | 7;
const NEW_RULE: u16 = (10 << 8) | 6;
const REQUEST_DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Lengths of `nlmsghdr` and `nfgenmsg`.
const HEADER: usize = 16;
const GENERIC: usize = 4;
/// `NFT_META_MARK`.
const MARK: u32 = 3;
const ALL: u32 = u32::MAX;

/// All of them in this network namespace. None where the kernel has no nftables.
///
/// # Errors
/// What the kernel says; without the right to ask, that.
pub fn marks() -> io::Result<Vec<MarkRule>> {
    let none = |error: &io::Error| matches!(error.raw_os_error(), Some(libc::EPROTONOSUPPORT | libc::EINVAL));
    match dump() {
        Err(error) if none(&error) => Ok(Vec::new()),
        other => other,
    }
}

fn dump() -> io::Result<Vec<MarkRule>> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = Vec::with_capacity(HEADER + GENERIC);
    request.extend(u32::try_from(HEADER + GENERIC).unwrap_or(0).to_ne_bytes());
    request.extend(GET_RULE.to_ne_bytes());
    request.extend(REQUEST_DUMP.to_ne_bytes());
    request.extend([0; 8]);
    // Of any family.
    request.extend([0; GENERIC]);
    socket.send(&request, 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _from) = socket.recv_from_full()?;
        let mut rest = bytes.as_slice();
        while let Some((kind, payload, next)) = message(rest) {
            rest = next;
            match kind {
                DONE => return Ok(found),
                ERROR => {
                    let code = payload.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    if code != 0 {
                        return Err(io::Error::from_raw_os_error(-code));
                    }
                }
                NEW_RULE => found.extend(rule(payload.get(GENERIC..).unwrap_or_default())),
                _ => {}
            }
        }
    }
}

/// Kind and payload of the first, and what is behind it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let payload = bytes.get(HEADER..length)?;
    let next = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, payload, next))
}

/// Kind and content of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let content = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        // Without the flags for nesting and byte order.
        Some((kind & 0x3fff, content))
    })
}

fn get(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes)
        .find(|(kind, _)| *kind == wanted)
        .map(|(_, content)| content)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

fn number(bytes: &[u8], wanted: u16) -> Option<u32> {
    Some(u32::from_be_bytes(*get(bytes, wanted)?.first_chunk()?))
}

/// The register of an attribute. Four small ones have one big one's place.
fn register(bytes: &[u8], wanted: u16) -> Option<u32> {
    const SMALL: u32 = 8;
    let register = number(bytes, wanted)?;
    Some(if register < SMALL / 2 + 1 {
        SMALL + 4 * register.saturating_sub(1)
    } else {
        register
    })
}

/// `NFTA_DATA_VALUE`, as a mark: in the host's order.
fn value(bytes: &[u8], wanted: u16) -> Option<u32> {
    let data = get(get(bytes, wanted)?, 1)?;
    Some(u32::from_ne_bytes(*data.first_chunk()?))
}

/// Whether a rule looks at marks, and at which bits.
fn rule(bytes: &[u8]) -> Option<MarkRule> {
    let mut rule = MarkRule {
        place: format!(
            "table {}, chain {}",
            text(get(bytes, 1).unwrap_or_default()),
            text(get(bytes, 2).unwrap_or_default())
        ),
        matched: 0,
        written: 0,
    };
    // Registers that hold the packet's mark: which bits of it are left, and which are flipped.
    let mut held: BTreeMap<u32, (u32, u32)> = BTreeMap::new();
    for (_, expression) in attributes(get(bytes, 4)?) {
        let name = text(get(expression, 1).unwrap_or_default());
        let data = get(expression, 2).unwrap_or_default();
        match name.as_str() {
            "meta" => meta(data, &mut held, &mut rule),
            "bitwise" => {
                let from = register(data, 1).and_then(|register| held.get(&register).copied());
                if let (Some(to), Some((left, flipped))) = (register(data, 2), from) {
                    // An operation between registers is beyond us.
                    let (mask, xor) = (value(data, 4), value(data, 5));
                    let (mask, xor) = (mask.unwrap_or(0), xor.unwrap_or(ALL));
                    held.insert(to, (left & mask, flipped & mask ^ xor));
                }
            }
            "cmp" | "lookup" => {
                let from = register(data, if name == "cmp" { 1 } else { 2 });
                if let Some((left, _)) = from.and_then(|register| held.get(&register)) {
                    rule.matched |= left;
                }
            }
            "match" => matched(data, &mut rule),
            "target" => target(data, &mut rule),
            _ => {
                // Whatever else writes a register. `dreg` is the first attribute of most.
                if let Some(to) = register(data, 1).filter(|_| name == "immediate" || name == "ct") {
                    held.remove(&to);
                }
            }
        }
    }
    (rule.matched | rule.written != 0).then_some(rule)
}

fn meta(data: &[u8], held: &mut BTreeMap<u32, (u32, u32)>, rule: &mut MarkRule) {
    let is_mark = number(data, 2) == Some(MARK);
    if let Some(to) = register(data, 1) {
        if is_mark {
            held.insert(to, (ALL, 0));
        } else {
            held.remove(&to);
        }
    } else if let Some(from) = register(data, 3).filter(|_| is_mark) {
        rule.written |= held.get(&from).map_or(ALL, |(left, flipped)| !left | flipped);
    }
}

/// `struct xt_mark_mtinfo1`: mark, mask.
fn matched(data: &[u8], rule: &mut MarkRule) {
    let info = get(data, 3).unwrap_or_default();
    if text(get(data, 1).unwrap_or_default()) == "mark" {
        rule.matched |= word(info, 4);
    }
}

/// `struct xt_mark_tginfo2`: mark, mask. `struct xt_connmark_tginfo1`: mark, masks of the connection's and the packet's, mode (2: the
/// packet's is restored).
fn target(data: &[u8], rule: &mut MarkRule) {
    let info = get(data, 3).unwrap_or_default();
    match text(get(data, 1).unwrap_or_default()).as_str() {
        "MARK" => rule.written |= word(info, 0) | word(info, 4),
        "CONNMARK" if info.get(12) == Some(&2) => rule.written |= word(info, 8),
        _ => {}
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let found = bytes.get(at..).and_then(|bytes| bytes.first_chunk());
    found.map_or(0, |word| u32::from_ne_bytes(*word))
}
