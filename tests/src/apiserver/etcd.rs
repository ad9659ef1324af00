//! etcd, and the little of its API that tests need.

use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::program::Program;
use super::{ApiError, Result, free_port};

#[derive(Debug)]
pub(super) struct Etcd {
    program: Program,
    port: u16,
}

impl Etcd {
    pub(super) fn start(dir: &Path, timeout: Duration) -> Result<Self> {
        let port = free_port()?;
        let url = url(port);
        let mut data = OsString::from("--data-dir=");
        data.push(dir.join("etcd"));
        let mut args = vec![data];
        args.extend(
            [
                format!("--listen-client-urls={url}"),
                format!("--advertise-client-urls={url}"),
                // It has no peers.
                "--listen-peer-urls=http://127.0.0.1:0".to_owned(),
                // An election among one.
                "--heartbeat-interval=10".to_owned(),
                "--election-timeout=50".to_owned(),
            ]
            .map(OsString::from),
        );
        let program = Program::start("etcd", "TEST_ASSET_ETCD", args, dir)?;
        let mut etcd = Self { program, port };
        etcd.wait(timeout)?;
        Ok(etcd)
    }

    pub(super) fn url(&self) -> String {
        url(self.port)
    }

    pub(super) fn log(&self) -> &Path {
        self.program.log()
    }

    pub(super) fn kill(&mut self) -> Result<()> {
        self.program.kill()
    }

    pub(super) fn restart(&mut self, timeout: Duration) -> Result<()> {
        self.program.restart()?;
        self.wait(timeout)
    }

    pub(super) fn compact(&self) -> Result<()> {
        let status = call(self.port, "maintenance/status", &json!({}))?;
        let revision = status["header"]["revision"].clone();
        call(
            self.port,
            "kv/compaction",
            &json!({"revision": revision, "physical": true}),
        )
        .map(drop)
    }

    fn wait(&mut self, timeout: Duration) -> Result<()> {
        let port = self.port;
        self.program.wait(timeout, || {
            call(port, "maintenance/status", &json!({}))
                .map(drop)
                .map_err(|error| error.to_string())
        })
    }
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

/// etcd's API as JSON over HTTP.
fn call(port: u16, method: &str, body: &Value) -> Result<Value> {
    let failed = || ApiError::io(format!("etcd, {method}"));
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(failed())?;
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .map_err(failed())?;
    let body = body.to_string();
    let request = format!(
        "POST /v3/{method} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).map_err(failed())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    if !status.contains(" 200 ") {
        return Err(ApiError::Etcd(format!("{method} with `{status}`: {body}")));
    }
    serde_json::from_str(body).map_err(|error| ApiError::Etcd(format!("{method} with {error}: {body}")))
}
