//! What kernel and userspace agree on, and the code that decides packets in both.
//!
//! [`abi`] is the layout of every map; [`packet`] reads headers through a trait; [`verdict`] is the only place
//! where precedence lives. None of the three names aya, so the same code runs in the kernel, in property tests
//! and in `calico-azure explain`. `bpf` (kernel target only) binds them to aya-ebpf's maps and contexts. [`yardstick`] is
//! for benchmarks only.
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![no_std]
#![allow(
    clippy::cast_possible_truncation,
    reason = "takes packed words apart, on purpose and everywhere"
)]

pub mod abi;
pub mod packet;
pub mod verdict;
pub mod yardstick;

#[cfg(target_arch = "bpf")]
pub mod bpf;
