//! Reads an agent's flow log.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Deserializer};

use super::{LabError, Result};

/// One record of a flow log.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Flow {
    /// `allow` or `deny`.
    pub verdict: String,
    /// A name of `abi::Reason`.
    pub reason: String,
    /// A name of `abi::Hook`.
    pub hook: String,
    #[serde(default)]
    pub interface: Option<String>,
    /// `namespace/name` of the pod whose interface it was.
    #[serde(default)]
    pub endpoint: Option<String>,
    #[serde(default)]
    pub src: Option<IpAddr>,
    #[serde(default)]
    pub sport: u16,
    #[serde(default)]
    pub dst: Option<IpAddr>,
    /// `type << 8 | code` for ICMP.
    #[serde(default)]
    pub dport: u16,
    /// `tcp`, `udp`, `icmp`, `icmpv6`, or the number.
    #[serde(default, deserialize_with = "name_or_number")]
    pub protocol: String,
    /// The deciding rule.
    #[serde(default)]
    pub rule: Option<String>,
    /// What staged policies would decide.
    #[serde(default)]
    pub staged: Option<Staged>,
    /// A `Log` rule asked for this record.
    #[serde(default)]
    pub log: bool,
    #[serde(skip)]
    pub line: String,
}

/// What staged policies would decide about a flow.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Staged {
    /// `allow`, `deny` or `unknown`.
    pub verdict: String,
    /// Rule that would decide.
    pub rule: Option<String>,
}

/// An agent's flow log: JSON lines that are still being appended.
#[derive(Clone, Debug)]
pub struct FlowLog {
    path: PathBuf,
}

impl FlowLog {
    /// The log at `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// Where the log is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How long the log is: a mark for [`Self::since`].
    #[must_use]
    pub fn mark(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |meta| meta.len())
    }

    /// The complete records after `mark`.
    pub fn since(&self, mark: u64) -> Result<Vec<Flow>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(LabError::file(&self.path)(error)),
        };
        let text = String::from_utf8_lossy(&bytes);
        let Some(text) = usize::try_from(mark).ok().and_then(|mark| text.get(mark..)) else {
            return Ok(Vec::new());
        };
        let complete = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        complete
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .map(|line| self.parse(line))
            .collect()
    }

    /// Waits for the first record after `mark` that satisfies `accept`.
    pub fn wait_for(
        &self,
        mark: u64,
        what: &str,
        timeout: Duration,
        accept: impl Fn(&Flow) -> bool,
    ) -> Result<Flow> {
        let end = Instant::now() + timeout;
        loop {
            if let Some(flow) = self.since(mark)?.into_iter().find(|flow| accept(flow)) {
                return Ok(flow);
            }
            if Instant::now() >= end {
                let what = format!("{what} in {}", self.path.display());
                return Err(LabError::Timeout { what, timeout });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn parse(&self, line: &str) -> Result<Flow> {
        let mut flow: Flow = serde_json::from_str(line).map_err(|e| LabError::Format {
            path: self.path.clone(),
            problem: format!("not a flow record: {e}: {line}"),
        })?;
        line.clone_into(&mut flow.line);
        Ok(flow)
    }
}

fn name_or_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Name(String),
        Number(u64),
    }
    Ok(match Either::deserialize(deserializer)? {
        Either::Name(name) => name,
        Either::Number(number) => number.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn only_complete_lines_after_the_mark_are_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let log = FlowLog::new(file.path());
        let record = |port: u16, protocol: &str| {
            format!(
                r#"{{"verdict":"deny","reason":"policy-deny","hook":"to-workload","dport":{port},"protocol":{protocol}}}"#
            )
        };
        writeln!(file, "{}", record(1, "\"tcp\"")).unwrap();
        let mark = log.mark();
        write!(file, "{}\n{}", record(2, "4"), record(3, "\"udp\"")).unwrap();
        let flows = log.since(mark).unwrap();
        assert_eq!(
            flows
                .iter()
                .map(|f| (f.dport, f.protocol.as_str()))
                .collect::<Vec<_>>(),
            [(2, "4")]
        );
        writeln!(file).unwrap();
        assert_eq!(log.since(mark).unwrap().len(), 2);
        writeln!(file, "nonsense").unwrap();
        assert!(log.since(mark).unwrap_err().to_string().contains("nonsense"));
    }
}
