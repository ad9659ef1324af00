//! What `cargo xtask fuzz packet` does for hours, for some seconds and the same each time: runs of mutated frames at every hook,
//! with counts of each. `CALICO_AZURE_FRAMES_INPUTS=NUMBER` makes it as many inputs as that, of some five frames each, on all processors.

use std::net::IpAddr;

use anyhow::{Context as _, Result};
use calico_azure_tests::fuzz::{Counted, TARGETS, counted};
use calico_azure_tests::harness::packet::{ACK, FIN, Frame, RST, SYN};
use calico_azure_tests::harness::scenario::address;
use calico_azure_userspace::policy::generate::Rng;

/// Inputs, of some frames each.
const INPUTS: usize = 20_000;
const MORE: &str = "CALICO_AZURE_FRAMES_INPUTS";

/// Where a frame is seen, as `fuzz::packet` reads it.
mod at {
    pub(crate) const FROM: u8 = 0;
    pub(crate) const TO: u8 = 1;
    pub(crate) const ARRIVES: u8 = 2;
    pub(crate) const LEAVES: u8 = 3;
    pub(crate) const POD_B: u8 = 4;
    pub(crate) const BY_HOST: u8 = 32;
    pub(crate) const UNTRACKED: u8 = 64;
    pub(crate) const RESET: u8 = 65;
    pub(crate) const HOST_IN: u8 = 66;
    pub(crate) const HOST_OUT: u8 = 67;
    pub(crate) const MARKED_AT_POD: u8 = 128;
    pub(crate) const MARKED_AT_FABRIC: u8 = 129;
    pub(crate) const TO_HOST: u8 = 130;
    pub(crate) const MARKED_BY_NOBODY: u8 = 131;
}

const HOOKS: [u8; 14] = [
    at::FROM,
    at::FROM | at::POD_B,
    at::TO,
    at::TO | at::POD_B,
    at::ARRIVES,
    at::LEAVES,
    at::UNTRACKED,
    at::RESET,
    at::HOST_IN,
    at::HOST_OUT,
    at::MARKED_AT_POD | at::POD_B,
    at::MARKED_AT_FABRIC,
    at::TO_HOST,
    at::MARKED_BY_NOBODY,
];

const NAMES: [&str; 9] = [
    "a",
    "b",
    "remote",
    "unassigned",
    "node",
    "other-node",
    "outside",
    "wireserver",
    "multicast",
];
const PORTS: [u16; 14] = [
    22, 23, 53, 68, 80, 123, 443, 1500, 4789, 5000, 7000, 8080, 8472, 9000,
];

/// A frame that belongs where it is seen, so that much of it passes as it is.
fn fitting(rng: &mut Rng) -> (u8, Frame) {
    let v6 = rng.chance(50);
    let service: IpAddr = if v6 {
        [0xfd00, 0x10, 0x96, 0, 0, 0, 0, 1].into()
    } else {
        [10, 96, 0, 1].into()
    };
    let ip = |name: &str| address(name, v6);
    let (place, src, dst, port) = match rng.below(9) {
        0 => (at::FROM, ip("a"), ip("remote"), 80),
        1 => (at::TO | at::POD_B, ip("a"), ip("b"), 80),
        2 => (at::FROM, ip("a"), service, 443),
        3 => (at::MARKED_AT_POD | at::POD_B, ip("a"), ip("b"), 80),
        4 => (at::MARKED_AT_FABRIC, ip("a"), ip("remote"), 80),
        5 => (at::HOST_IN, ip("outside"), ip("node"), 8080),
        6 => (at::HOST_OUT | at::BY_HOST, ip("node"), ip("outside"), 443),
        7 => (at::HOST_OUT, ip("a"), ip("outside"), 443),
        _ => (at::TO_HOST, ip("a"), ip("outside"), 80),
    };
    (place, Frame::new(src, dst, 6, 1024, port))
}

/// Any frame.
fn any(rng: &mut Rng) -> Frame {
    let v6 = rng.chance(50);
    let end = |rng: &mut Rng| address(rng.one_of(NAMES), v6);
    let (src, dst) = (end(rng), end(rng));
    let protocol = rng.one_of([1, 6, 6, 6, 17, 17, 58, 132, 4, 47]);
    let port = match protocol {
        1 => rng.one_of([8 << 8, (3 << 8) | 1, 11 << 8]),
        58 => rng.one_of([128 << 8, (1 << 8) | 4, 135 << 8, 2 << 8]),
        _ => rng.one_of(PORTS),
    };
    let sport = rng.one_of([1024, 80, 443, 68]);
    let mut frame =
        Frame::new(src, dst, protocol, sport, port).flags(rng.one_of([SYN, ACK, SYN | ACK, FIN | ACK, RST]));
    if rng.chance(15) {
        let later = rng.chance(50);
        frame.fragment = Some((7, if later { 3 } else { 0 }, !later));
    }
    if v6 && rng.chance(10) {
        frame.extensions = vec![(60, 8)];
    }
    if rng.chance(5) {
        frame.tags = vec![(0x8100, 5)];
    }
    frame
}

fn append(input: &mut Vec<u8>, place: u8, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    input.push(place);
    input.extend(length.to_le_bytes());
    input.extend(&bytes[..usize::from(length)]);
}

/// A few frames, most of them about one flow, some of them damaged.
fn input(rng: &mut Rng) -> Vec<u8> {
    let mut input = Vec::new();
    let (place, flow) = fitting(rng);
    for _ in 0..=rng.below(9) {
        let (at, frame) = match rng.below(6) {
            0 | 1 => (place, flow.clone().flags(rng.one_of([SYN, ACK, RST]))),
            2 => (
                rng.one_of(HOOKS),
                flow.reply().flags(rng.one_of([SYN | ACK, ACK])),
            ),
            3 => (rng.one_of(HOOKS), flow.clone().flags(ACK)),
            4 => {
                let v6 = flow.src.is_ipv6();
                let (kind, code) = if v6 { (1, 4) } else { (3, 3) };
                let router = address(rng.one_of(NAMES), v6);
                (
                    rng.one_of(HOOKS),
                    flow.error(router, kind, code, rng.one_of([28, 48, 68])),
                )
            }
            _ => (rng.one_of(HOOKS), any(rng)),
        };
        let at = if rng.chance(8) {
            at ^ (1 << rng.below(8))
        } else {
            at
        };
        let mut bytes = frame.bytes();
        if rng.chance(45) {
            for _ in 0..=rng.below(3) {
                let place = rng.below(bytes.len());
                bytes[place] = match rng.below(3) {
                    0 => rng.byte(),
                    1 => bytes[place] ^ (1 << rng.below(8)),
                    _ => rng.one_of([0, 1, 0x7f, 0xff]),
                };
            }
        }
        if rng.chance(8) {
            bytes.truncate(rng.below(bytes.len()));
        }
        append(&mut input, at, &bytes);
    }
    input
}

#[test]
fn nothing_passes_that_a_strict_reader_and_a_naive_table_cannot_explain() -> Result<()> {
    let target = TARGETS.iter().find(|target| target.name == "packet");
    let check = target.context("there is no such target")?.check;
    let asked = std::env::var(MORE).ok().filter(|number| !number.is_empty());
    let (inputs, threads) = match asked {
        None => (INPUTS, 1),
        Some(number) => {
            let number = number.replace('_', "").parse();
            let number = number.with_context(|| format!("{MORE}: expected a number of inputs"))?;
            (INPUTS.max(number), std::thread::available_parallelism()?.get())
        }
    };
    // A thread that fails ends the test: the scope panics.
    std::thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                let mut rng = Rng::new(0xf00d + thread as u64);
                for _ in 0..inputs.div_ceil(threads) {
                    check(&input(&mut rng));
                }
            });
        }
    });
    let at_least = |of_few: usize| (of_few * (inputs / INPUTS)) as u64;
    for Counted { hook, seen, passed } in counted() {
        println!("{hook}: {seen} frames, {passed} passed or were answered");
        assert!(seen >= at_least(2_500), "{hook} saw {seen} frames only");
        assert!(
            passed >= at_least(60) && passed < seen,
            "{hook}: {passed} of {seen}"
        );
    }
    Ok(())
}
