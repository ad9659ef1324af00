//! A stand-in for Azure Resource Manager, the directory and the metadata service, on loopback: it answers in ARM's shapes (ETags,
//! operations that take a while, error codes), and misbehaves on demand.

mod az;
mod follower;
mod server;
mod store;
mod world;

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

pub use store::{Fault, Results, Store};
pub use world::{Said, World};

/// Ids of the resources that a stand-in begins with.
pub const GROUP: &str = "/subscriptions/s1/resourceGroups/cluster/providers";
/// The route table.
pub const TABLE: &str = "/subscriptions/s1/resourceGroups/cluster/providers/Microsoft.Network/routeTables/rt";
/// The virtual network.
pub const NETWORK: &str =
    "/subscriptions/s1/resourceGroups/cluster/providers/Microsoft.Network/virtualNetworks/vnet";
/// A password, which must be seen nowhere.
pub const PASSWORD: &str = "correct-horse-battery-staple";

/// What a stand-in holds, for several threads.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Store>>);

impl Shared {
    pub fn lock(&self) -> MutexGuard<'_, Store> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stand-in that ends when it is dropped.
pub struct FakeArm {
    address: SocketAddr,
    store: Shared,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeArm {
    /// Starts one with an empty route table and a virtual network 10.240.0.0/12 whose subnet `nodes`, 10.240.0.0/16, uses it.
    ///
    /// # Errors
    /// If no port of loopback can be had.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let mut store = Store::new(format!("http://{address}"));
        let subnet = format!("{NETWORK}/subnets/nodes");
        store.put(
            TABLE,
            json!({"location": "westeurope", "tags": {"owner": "me"}, "properties": {"disableBgpRoutePropagation": false,
                "routes": [], "subnets": [{"id": subnet}]}}),
        );
        store.put(
            NETWORK,
            json!({"location": "westeurope", "properties": {"addressSpace": {"addressPrefixes": ["10.240.0.0/12"]},
                "subnets": [{"id": subnet, "name": "nodes", "properties": {"addressPrefix": "10.240.0.0/16",
                    "routeTable": {"id": TABLE}}}]}}),
        );
        let store = Shared(Arc::new(Mutex::new(store)));
        let stop = Arc::new(AtomicBool::new(false));
        let (served, stopped) = (Arc::clone(&store.0), Arc::clone(&stop));
        let thread = std::thread::Builder::new()
            .name("arm".into())
            .spawn(move || server::serve(&listener, &served, &stopped))?;
        Ok(Self {
            address,
            store,
            stop,
            thread: Some(thread),
        })
    }

    /// `http://127.0.0.1:port`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it holds, and what goes wrong.
    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock()
    }

    /// The same, for another thread.
    #[must_use]
    pub fn shared(&self) -> Shared {
        self.store.clone()
    }

    /// An `azure.json` for it. `auth` are the keys that say who asks.
    #[must_use]
    pub fn cloud_config(&self, auth: &Value) -> Value {
        let mut config = json!({"cloud": "AzurePublicCloud", "tenantId": "t1", "subscriptionId": "s1", "resourceGroup": "cluster",
            "location": "westeurope", "vnetName": "vnet", "vnetResourceGroup": "", "subnetName": "nodes", "routeTableName": "rt",
            "vmType": "standard", "resourceManagerEndpoint": self.url(), "unknownKey": {"a": [1]}});
        if let (Some(config), Some(auth)) = (config.as_object_mut(), auth.as_object()) {
            config.extend(auth.clone());
        }
        config
    }

    /// Adds a machine's network interface `nic-<name>` with this address.
    pub fn add_nic(&self, name: &str, address: &str) {
        let id = format!("{GROUP}/Microsoft.Network/networkInterfaces/nic-{name}");
        let version = if address.contains(':') { "IPv6" } else { "IPv4" };
        let machine = format!("{GROUP}/Microsoft.Compute/virtualMachines/{name}");
        self.store().put(
            &id,
            json!({"location": "westeurope", "properties": {"enableIPForwarding": true, "primary": true,
                "macAddress": "00-0D-3A-00-00-01", "virtualMachine": {"id": machine},
                "ipConfigurations": [{"name": "ipconfig1", "properties": {"privateIPAddress": address,
                    "privateIPAddressVersion": version, "primary": true, "subnet": {"id": format!("{NETWORK}/subnets/nodes")}}}]}}),
        );
    }

    /// Writes a resource as a client of ARM would, whose answer's status this is.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn put(&self, id: &str, body: &Value) -> io::Result<u16> {
        let token = "somebody's";
        self.store().tokens.push(token.to_owned());
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(self.address)?;
        let head = format!(
            "PUT {id}?api-version=2024-05-01 HTTP/1.1\r\nhost: arm\r\nauthorization: Bearer {token}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        status.ok_or_else(|| io::Error::other("no status in the answer"))
    }

    /// Runs a command of the `az` command line, as far as our findings print any.
    ///
    /// # Errors
    /// If it is none of those, or what it names does not exist.
    pub fn az(&self, command: &str) -> Result<(), String> {
        az::run(&mut self.store(), command)
    }
}

impl Drop for FakeArm {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the one that accepts.
        let _refused = std::net::TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}
