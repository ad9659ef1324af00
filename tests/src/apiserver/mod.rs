//! A real kube-apiserver over a real etcd, on free ports of the loopback interface, for tests of what talks to one.
//!
//! Nothing else of a cluster is there: no controllers (so namespaces have no default service account, and never finish being
//! deleted), no scheduler, no kubelet. The server knows only its own certificate authority, authorises by RBAC, and keeps
//! everything in a directory that goes with it. `cargo xtask setup` gets both programs.

mod certs;
mod client;
mod custom;
mod error;
mod etcd;
mod objects;
mod program;

pub use custom::{CALICO_KINDS, CLUSTER_KINDS, Custom};
pub use error::ApiError;
pub use objects::{Objects, Written, collection};

use std::ffi::OsString;
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Client;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use self::certs::Certificates;
use self::etcd::Etcd;
use self::program::Program;

/// What every function here returns.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

/// Within this time the server is ready, or something is wrong. Machines that build at the same time are slow.
const DEADLINE: Duration = Duration::from_secs(60);
/// A port that was free may be taken by another when it is needed.
const ATTEMPTS: usize = 3;

/// How to start a server.
#[derive(Clone, Debug)]
pub struct ApiSpec {
    /// Whether the server answers watches from memory; without, [`ApiServer::compact`] makes them fail with 410 at once.
    pub watch_cache: bool,
    /// Appended to the server's own flags.
    pub args: Vec<OsString>,
}

impl Default for ApiSpec {
    fn default() -> Self {
        Self {
            watch_cache: true,
            args: Vec::new(),
        }
    }
}

/// A running server. Dropping it ends both programs; so does the end of this process, whatever ends it.
pub struct ApiServer {
    // In this order they are dropped.
    client: Client,
    apiserver: Program,
    etcd: Etcd,
    runtime: Runtime,
    port: u16,
    certificates: Certificates,
    kubeconfig: PathBuf,
    dir: TempDir,
}

impl ApiServer {
    /// Starts a server and waits until it is ready.
    pub fn start() -> Result<Self> {
        Self::start_with(&ApiSpec::default())
    }

    /// The same, with settings.
    pub fn start_with(spec: &ApiSpec) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::try_start(spec) {
                Err(ApiError::PortTaken { .. }) if attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn try_start(spec: &ApiSpec) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("caz-api-")
            .tempdir()
            .map_err(ApiError::io("a temporary directory"))?;
        let certificates = Certificates::create(dir.path())?;
        let etcd = Etcd::start(dir.path(), DEADLINE)?;
        let port = free_port()?;
        let args = arguments(spec, dir.path(), &certificates, &etcd, port);
        let apiserver = Program::start("kube-apiserver", "TEST_ASSET_KUBE_APISERVER", args, dir.path())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(ApiError::io("a runtime for the client"))?;
        let (kubeconfig, client) = connect(&runtime, dir.path(), port, &certificates)?;
        let mut server = Self {
            client,
            apiserver,
            etcd,
            runtime,
            port,
            certificates,
            kubeconfig,
            dir,
        };
        server.wait_ready()?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub fn url(&self) -> String {
        url(self.port)
    }

    /// The port of the loopback interface on which it listens.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A client that may do everything.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Runs what a client does to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// A kubeconfig for one who may do everything.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig with a token of a service account, which is made if it is not there. Nothing binds a role to it.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.block_on(client::token(&self.client, namespace, name))?;
        let config = client::kubeconfig(&self.url(), &self.certificates.authority, name, &token);
        client::write(self.dir.path(), &format!("{namespace}.{name}"), &config)
    }

    /// Server-side apply of every document of a manifest. With `dry_run` the server judges and keeps nothing. The names of the objects,
    /// as `Kind/name`.
    pub fn apply(&self, yaml: &str, dry_run: bool) -> Result<Vec<String>> {
        self.block_on(client::apply(&self.client, yaml, dry_run))
    }

    /// Kills the server, as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        self.apiserver.kill()
    }

    /// Starts the server again, on its port and with all it knew; kills it first if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.apiserver.restart()?;
        self.wait_ready()
    }

    /// Starts the server again with a certificate of another authority. Who trusts the earlier one does not trust it.
    pub fn renew_authority(&mut self) -> Result<()> {
        self.certificates.renew(self.dir.path())?;
        let (kubeconfig, client) = connect(&self.runtime, self.dir.path(), self.port, &self.certificates)?;
        (self.kubeconfig, self.client) = (kubeconfig, client);
        self.restart()
    }

    /// What clients trust: a certificate, PEM.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.certificates.authority
    }

    /// Kills etcd, as a crash would. The server stays, and can neither read nor write.
    pub fn kill_etcd(&mut self) -> Result<()> {
        self.etcd.kill()
    }

    /// Starts etcd again with all it knew; kills it first if it runs.
    pub fn restart_etcd(&mut self) -> Result<()> {
        self.etcd.restart(DEADLINE)?;
        self.wait_ready()
    }

    /// Makes etcd forget every earlier state: who asks for changes since one is told 410 (Gone).
    pub fn compact(&self) -> Result<()> {
        self.etcd.compact()
    }

    /// Stops the server in its tracks: connections stay open and nothing is answered.
    pub fn freeze(&self) -> Result<()> {
        self.apiserver.signal(libc::SIGSTOP)?;
        self.apiserver.wait_stopped(DEADLINE)
    }

    /// Undoes [`Self::freeze`].
    pub fn thaw(&self) -> Result<()> {
        self.apiserver.signal(libc::SIGCONT)
    }

    /// The server's process, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.apiserver.pid()
    }

    /// The server's and etcd's logs.
    #[must_use]
    pub fn logs(&self) -> [&Path; 2] {
        [self.apiserver.log(), self.etcd.log()]
    }

    fn wait_ready(&mut self) -> Result<()> {
        let Self {
            client,
            apiserver,
            runtime,
            ..
        } = self;
        apiserver.wait(DEADLINE, || runtime.block_on(client::ready(client)))
    }
}

/// As one who may do everything.
fn connect(
    runtime: &Runtime,
    dir: &Path,
    port: u16,
    certificates: &Certificates,
) -> Result<(PathBuf, Client)> {
    let Certificates {
        authority,
        admin_token,
        ..
    } = certificates;
    let config = client::kubeconfig(&url(port), authority, "admin", admin_token);
    let kubeconfig = client::write(dir, "admin", &config)?;
    Ok((kubeconfig, runtime.block_on(client::connect(config))?))
}

fn url(port: u16) -> String {
    format!("https://127.0.0.1:{port}")
}

/// Asks the kernel for a port, and gives it back for the program to take.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ApiError::io("a free port"))?;
    let address = listener.local_addr().map_err(ApiError::io("a free port"))?;
    Ok(address.port())
}

fn arguments(
    spec: &ApiSpec,
    dir: &Path,
    certificates: &Certificates,
    etcd: &Etcd,
    port: u16,
) -> Vec<OsString> {
    let file = |name: &str, path: &Path| -> OsString {
        let mut arg = OsString::from(format!("--{name}="));
        arg.push(path);
        arg
    };
    let mut args: Vec<OsString> = [
        format!("--secure-port={port}"),
        format!("--etcd-servers={}", etcd.url()),
        format!("--watch-cache={}", spec.watch_cache),
        "--bind-address=127.0.0.1".to_owned(),
        // There is one server, whose loopback address must not become an endpoint of anything.
        "--endpoint-reconciler-type=none".to_owned(),
        "--service-cluster-ip-range=10.0.0.0/24".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        // It waits for service accounts that only a controller makes.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--enable-priority-and-fairness=false".to_owned(),
        "--profiling=false".to_owned(),
    ]
    .into_iter()
    .map(OsString::from)
    .collect();
    args.extend([
        file("cert-dir", &dir.join("certs")),
        file("tls-cert-file", &certificates.server_certificate),
        file("tls-private-key-file", &certificates.server_key),
        file("token-auth-file", &certificates.tokens),
        file("service-account-signing-key-file", &certificates.issuer_key),
        file("service-account-key-file", &certificates.issuer_public_key),
    ]);
    args.extend(spec.args.iter().cloned());
    args
}
