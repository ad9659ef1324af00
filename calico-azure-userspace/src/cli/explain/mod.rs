//! `explain`: what becomes of one packet, and why.

mod ends;
mod live;
mod offline;
mod report;
mod shown;
mod trace;

use std::io::{self, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use super::inputs::written;
use super::live::LiveArgs;
use super::{FINDING, Format, OK, Outcome, protocol};
use crate::judge::EngineName;
use crate::policy::reference::Flow;

/// What becomes of a packet, and why: the decision, the rule that made it and where it is written, then every tier,
/// policy and rule that was looked at on both sides, each rule that did not match with the first criterion that failed.
///
/// WHO is namespace/name of a pod or of a workload (any pod of it), a node's name, or an address. The packet is the
/// first of a flow, after service translation. A pod without an address counts as one that lies in no CIDR of the
/// inputs. Where there are staged policies, also what would be if they were enforced.
///
/// With --live the answer is read from the kernel's tables on this node, and needs no manifests: the verdict, the rule,
/// and which policy set, peer class and port table led to it, for the side that is a pod of this node or both.
///
/// Exit code: 0, whatever the verdict; 1 if the engines disagree, which is a bug of this program: please report it;
/// 2 if something could not be read or nobody is meant.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ExplainArgs {
    /// Who sends.
    #[arg(long, value_name = "WHO")]
    from: String,
    /// Who is meant to get it.
    #[arg(long, value_name = "WHO")]
    to: String,
    /// tcp, udp, sctp, icmp, icmpv6, udplite, or a number.
    #[arg(long, default_value = "tcp", value_parser = parse_protocol)]
    protocol: u8,
    /// Destination port.
    #[arg(long)]
    port: Option<u16>,
    /// Source port.
    #[arg(long, default_value_t = 50_000)]
    sport: u16,
    #[arg(long, default_value_t = 8, value_name = "TYPE")]
    icmp_type: u8,
    #[arg(long, default_value_t = 0, value_name = "CODE")]
    icmp_code: u8,
    /// Who judges: `all`, or some of reference, compiled, kernel.
    #[arg(long, value_delimiter = ',', default_value = "all", value_parser = parse_engines)]
    engine: Vec<Engines>,
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    /// An eBPF object instead of the one in this binary.
    #[arg(long, value_name = "FILE")]
    object: Option<PathBuf>,
    #[command(flatten)]
    live: LiveArgs,
    /// Manifests: files and directories.
    #[arg(required_unless_present = "live")]
    paths: Vec<PathBuf>,
}

/// One engine, or all that can be asked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Engines {
    All,
    One(EngineName),
}

fn parse_engines(text: &str) -> Result<Engines, String> {
    let one = EngineName::ALL.into_iter().find(|engine| engine.as_str() == text);
    match (text, one) {
        ("all", _) => Ok(Engines::All),
        (_, Some(engine)) => Ok(Engines::One(engine)),
        (_, None) => Err("expected all, reference, compiled or kernel".to_owned()),
    }
}

fn parse_protocol(text: &str) -> Result<u8, String> {
    protocol::parse(text).ok_or_else(|| {
        let known = protocol::NAMES.map(|(name, _)| name).join(", ");
        format!("expected {known} or a number from 0 to 255")
    })
}

impl ExplainArgs {
    pub(super) fn run(self, out: &mut dyn Write) -> Outcome {
        let mut err = io::stderr().lock();
        self.print(out, &mut err)
    }

    fn print(&self, out: &mut dyn Write, err: &mut dyn Write) -> Outcome {
        let report = if self.live.live {
            live::explain(self)?
        } else {
            offline::explain(self, err)?
        };
        let code = if report.agree { OK } else { FINDING };
        let result = match self.output {
            Format::Table => shown::write(&report, out),
            Format::Json => serde_json::to_writer_pretty(&mut *out, &report)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out)),
        };
        if !report.agree {
            let _closed = writeln!(
                err,
                "\nthe engines DISAGREE about this packet: a bug of calico-azure; please report it with these manifests"
            );
        }
        Ok(written(result, code))
    }

    /// The packet between two addresses.
    fn flow(&self, src: IpAddr, dst: IpAddr) -> Result<Flow, String> {
        let (sport, dport) = match self.protocol {
            6 | 17 | 132 | 136 => {
                let name = crate::analysis::protocol_name(self.protocol);
                let port = self
                    .port
                    .ok_or_else(|| format!("--port is missing: {name} has ports"))?;
                (self.sport, port)
            }
            1 | 58 => {
                // An echo request, unless told otherwise.
                let echo = if self.protocol == 58 && self.icmp_type == 8 {
                    128
                } else {
                    self.icmp_type
                };
                (0, u16::from_be_bytes([echo, self.icmp_code]))
            }
            _ => (0, 0),
        };
        Ok(Flow {
            src,
            dst,
            protocol: self.protocol,
            sport,
            dport,
        })
    }
}
