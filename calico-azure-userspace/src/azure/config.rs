//! `azure.json`, the file that cloud-provider-azure is configured with, read as leniently as it is written: unknown keys, empty
//! strings, numbers and booleans in quotes.

use std::path::PathBuf;

use serde_json::{Map, Value};

use super::cloud::{Cloud, UnknownCloud};
use super::resource::Id;
use super::secret::Secret;

/// What we need of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudConfig {
    pub cloud: Cloud,
    /// Of the machines.
    pub subscription: String,
    /// Of the network, if it is in another one.
    pub network_subscription: String,
    pub resource_group: String,
    pub location: String,
    pub vnet: String,
    pub vnet_resource_group: String,
    pub subnet: String,
    pub route_table: String,
    pub route_table_resource_group: String,
    /// Machines are in scale sets (`vmType` is `vmss`, or nothing is said).
    pub scale_sets: bool,
    pub auth: Auth,
}

/// How to prove who we are, by cloud-provider-azure's precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Auth {
    /// A token of the cluster's, exchanged for one of the directory's. The file is read again each time.
    Federated {
        tenant: String,
        client: String,
        file: PathBuf,
    },
    /// The machine's identity, or another one of its identities.
    ManagedIdentity { identity: Option<Identity> },
    /// An application's password.
    ClientSecret {
        tenant: String,
        client: String,
        secret: Secret,
    },
}

/// How one of several identities of a machine is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// A client id.
    Client(String),
    /// The id of its resource.
    Resource(String),
}

/// The file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read it: {0}; give --cloud-config the cluster's azure.json")]
    Unreadable(#[from] std::io::Error),
    #[error("is neither JSON nor YAML: {0}")]
    Syntax(String),
    #[error("is no object, but {0}")]
    NoObject(&'static str),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{field} is {found}, expected {expected}")]
    Field {
        field: String,
        found: String,
        expected: &'static str,
    },
    #[error(transparent)]
    Cloud(#[from] UnknownCloud),
    #[error(
        "authentication by certificate (aadClientCertPath) is not supported; use a managed identity, a federated token, or a secret"
    )]
    Certificate,
    #[error(
        "networkResourceTenantID names another tenant than tenantId: networks of another tenant are not supported; run the doctor with an \
         azure.json of that tenant"
    )]
    OtherTenant,
    #[error(
        "does not say who we are: none of useFederatedWorkloadIdentityExtension with aadFederatedTokenFile, useManagedIdentityExtension, aadClientId \
         with aadClientSecret is given"
    )]
    NoAuth,
}

impl CloudConfig {
    /// Reads the file; `env` is the environment, which overrides who we are.
    ///
    /// # Errors
    /// [`ConfigError`]. No error repeats a value of a secret.
    pub fn read(path: &std::path::Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        Self::parse(&std::fs::read_to_string(path)?, env)
    }

    /// As [`CloudConfig::read`], from its text.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let value: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?
        } else {
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Syntax(error.to_string()))?
        };
        let keys = match value {
            Value::Object(keys) => Keys(keys),
            Value::Null => return Err(ConfigError::NoObject("empty")),
            Value::Array(_) => return Err(ConfigError::NoObject("a list")),
            _ => return Err(ConfigError::NoObject("a single value")),
        };
        let cloud = Cloud::named(
            &keys.text("cloud")?.unwrap_or_default(),
            keys.text("resourceManagerEndpoint")?.as_deref(),
        )?;
        let (network_tenant, tenant) = (keys.text("networkResourceTenantID")?, keys.text("tenantId")?);
        if network_tenant.is_some_and(|other| !other.is_empty() && Some(other) != tenant) {
            return Err(ConfigError::OtherTenant);
        }
        let auth = auth(&keys, |name| env(name).filter(|value| !value.is_empty()))?;
        let need = |key| keys.text(key)?.ok_or(ConfigError::Missing(key));
        let (subscription, group) = (need("subscriptionId")?, need("resourceGroup")?);
        let or_group = |key| Ok::<_, ConfigError>(keys.text(key)?.unwrap_or_else(|| group.clone()));
        let optional = |key| Ok::<_, ConfigError>(keys.text(key)?.unwrap_or_default());
        Ok(Self {
            cloud,
            network_subscription: keys
                .text("networkResourceSubscriptionID")?
                .unwrap_or_else(|| subscription.clone()),
            location: optional("location")?,
            vnet: optional("vnetName")?,
            vnet_resource_group: or_group("vnetResourceGroup")?,
            subnet: optional("subnetName")?,
            route_table: optional("routeTableName")?,
            route_table_resource_group: or_group("routeTableResourceGroup")?,
            scale_sets: keys
                .text("vmType")?
                .is_none_or(|kind| kind.eq_ignore_ascii_case("vmss")),
            subscription,
            resource_group: group,
            auth,
        })
    }

    /// The route table's id, if one is named.
    #[must_use]
    pub fn route_table_id(&self) -> Option<Id> {
        let name = (!self.route_table.is_empty()).then_some(&self.route_table)?;
        Some(Id::new(format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Network/routeTables/{name}",
            self.network_subscription, self.route_table_resource_group
        )))
    }

    /// The virtual network's id, if one is named.
    #[must_use]
    pub fn vnet_id(&self) -> Option<Id> {
        let name = (!self.vnet.is_empty()).then_some(&self.vnet)?;
        Some(Id::new(format!(
            "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.Network/virtualNetworks/{name}",
            self.network_subscription, self.vnet_resource_group
        )))
    }
}

fn auth(keys: &Keys, env: impl Fn(&str) -> Option<String>) -> Result<Auth, ConfigError> {
    let tenant = env("AZURE_TENANT_ID").map_or_else(|| keys.text("tenantId"), |tenant| Ok(Some(tenant)))?;
    let client =
        env("AZURE_CLIENT_ID").map_or_else(|| keys.text("aadClientId"), |client| Ok(Some(client)))?;
    let tenant = || tenant.clone().ok_or(ConfigError::Missing("tenantId"));
    let application = || client.clone().ok_or(ConfigError::Missing("aadClientId"));
    // The webhook's variable says both which file and that it is to be used; the file's key alone says only which.
    let injected = env("AZURE_FEDERATED_TOKEN_FILE");
    if injected.is_some() || keys.flag("useFederatedWorkloadIdentityExtension")? {
        let file = injected.map_or_else(|| keys.text("aadFederatedTokenFile"), |file| Ok(Some(file)))?;
        let file = file.ok_or(ConfigError::Missing("aadFederatedTokenFile"))?;
        return Ok(Auth::Federated {
            tenant: tenant()?,
            client: application()?,
            file: file.into(),
        });
    }
    if keys.flag("useManagedIdentityExtension")? {
        let identity = keys.text("userAssignedIdentityID")?.map(|id| {
            if id.to_ascii_lowercase().contains("/subscriptions/") {
                Identity::Resource(id)
            } else {
                Identity::Client(id)
            }
        });
        return Ok(Auth::ManagedIdentity { identity });
    }
    let secret =
        env("AZURE_CLIENT_SECRET").map_or_else(|| keys.text("aadClientSecret"), |secret| Ok(Some(secret)))?;
    if let Some(secret) = secret {
        return Ok(Auth::ClientSecret {
            tenant: tenant()?,
            client: application()?,
            secret: Secret::new(secret),
        });
    }
    if keys.text("aadClientCertPath")?.is_some() {
        return Err(ConfigError::Certificate);
    }
    Err(ConfigError::NoAuth)
}

/// The file's keys; Go's decoder, which the cloud provider reads it with, minds no case.
struct Keys(Map<String, Value>);

impl Keys {
    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).or_else(|| {
            let mut other = self.0.iter().filter(|(name, _)| name.eq_ignore_ascii_case(key));
            other.next().map(|(_, value)| value)
        })
    }

    /// An empty string is as good as none.
    fn text(&self, key: &str) -> Result<Option<String>, ConfigError> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.trim().to_owned()).filter(|text| !text.is_empty())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(ConfigError::Field {
                field: key.to_owned(),
                found: kind(other).to_owned(),
                expected: "a string",
            }),
        }
    }

    fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        match self.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
            Some(Value::String(text)) if text.is_empty() || text.eq_ignore_ascii_case("false") => Ok(false),
            Some(other) => Err(ConfigError::Field {
                field: key.to_owned(),
                found: kind(other).to_owned(),
                expected: "true or false",
            }),
        }
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &str = r#""subscriptionId":"s","resourceGroup":"g","tenantId":"t","aadClientId":"c""#;

    fn parse(more: &str, env: &[(&str, &str)]) -> Result<CloudConfig, ConfigError> {
        let env = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, v)| (*v).to_owned())
        };
        CloudConfig::parse(&format!("{{{BASE}{more}}}"), env)
    }

    fn auth_of(more: &str, env: &[(&str, &str)]) -> Auth {
        parse(more, env).unwrap().auth
    }

    #[test]
    fn who_we_are_by_precedence() {
        let secret = r#","aadClientSecret":"hush""#;
        let managed = r#","useManagedIdentityExtension":true,"userAssignedIdentityID":"u""#;
        // As cloud-provider-azure has it: a file that nobody has said to use is not used.
        let unused = r#","aadFederatedTokenFile":"/f""#;
        let federated = r#","useFederatedWorkloadIdentityExtension":true,"aadFederatedTokenFile":"/f""#;
        let of_secret = Auth::ClientSecret {
            tenant: "t".into(),
            client: "c".into(),
            secret: Secret::new("hush"),
        };
        assert_eq!(auth_of(secret, &[]), of_secret);
        assert_eq!(auth_of(&format!("{secret}{unused}"), &[]), of_secret);
        let identity = Auth::ManagedIdentity {
            identity: Some(Identity::Client("u".into())),
        };
        assert_eq!(auth_of(&format!("{secret}{managed}"), &[]), identity);
        assert_eq!(auth_of(&format!("{secret}{managed}{unused}"), &[]), identity);
        let of =
            "/subscriptions/s/resourcegroups/g/providers/Microsoft.ManagedIdentity/userAssignedIdentities/i";
        let by_resource = format!(r#","useManagedIdentityExtension":true,"userAssignedIdentityID":"{of}""#);
        let identity = Auth::ManagedIdentity {
            identity: Some(Identity::Resource(of.into())),
        };
        assert_eq!(auth_of(&by_resource, &[]), identity);
        let token = |client: &str, file: &str| Auth::Federated {
            tenant: "t".into(),
            client: client.into(),
            file: file.into(),
        };
        assert_eq!(
            auth_of(&format!("{secret}{managed}{federated}"), &[]),
            token("c", "/f")
        );
        let env = [("AZURE_CLIENT_ID", "e"), ("AZURE_FEDERATED_TOKEN_FILE", "/e")];
        assert_eq!(auth_of(managed, &env), token("e", "/e"));
        assert!(matches!(parse("", &[]), Err(ConfigError::NoAuth)));
        assert!(matches!(parse(unused, &[]), Err(ConfigError::NoAuth)));
        let without = r#","useFederatedWorkloadIdentityExtension":true"#;
        assert!(matches!(
            parse(without, &[]),
            Err(ConfigError::Missing("aadFederatedTokenFile"))
        ));
        let certificate = r#","aadClientCertPath":"/c""#;
        assert!(matches!(parse(certificate, &[]), Err(ConfigError::Certificate)));
        let tenant = |id: &str| {
            parse(
                &format!(r#","aadClientSecret":"x","networkResourceTenantID":"{id}""#),
                &[],
            )
        };
        assert!(matches!(tenant("other"), Err(ConfigError::OtherTenant)));
        assert!(tenant("t").is_ok() && tenant("").is_ok());
    }

    #[test]
    fn what_people_write() {
        let managed = r#","useManagedIdentityExtension":"true","userAssignedIdentityID":"","unknown":[1],
            "RouteTableName":"rt","vnetName":"v","networkResourceSubscriptionID":"n","cloud":"AZURECHINACLOUD""#;
        let config = parse(managed, &[]).unwrap();
        assert_eq!(config.auth, Auth::ManagedIdentity { identity: None });
        assert!(config.scale_sets);
        assert_eq!(
            config.cloud.resource_manager,
            "https://management.chinacloudapi.cn"
        );
        let table = "/subscriptions/n/resourceGroups/g/providers/Microsoft.Network/routeTables/rt";
        assert_eq!(config.route_table_id(), Some(Id::new(table)));
        let yaml =
            "subscriptionId: s\nresourceGroup: g\nuseManagedIdentityExtension: true\nvmType: standard\n";
        let config = CloudConfig::parse(yaml, |_| None).unwrap();
        assert!(!config.scale_sets && config.route_table_id().is_none());
    }

    #[test]
    fn errors_name_the_field_and_no_secret() {
        for (more, said) in [
            (
                r#","useManagedIdentityExtension":[1]"#,
                "useManagedIdentityExtension is a list",
            ),
            (
                r#","cloud":"Moon","aadClientSecret":"hush""#,
                "resourceManagerEndpoint",
            ),
            (
                r#","vnetName":{},"aadClientSecret":"hush""#,
                "vnetName is an object",
            ),
        ] {
            let error = parse(more, &[]).unwrap_err().to_string();
            assert!(error.contains(said) && !error.contains("hush"), "{error}");
        }
        let config = parse(r#","aadClientSecret":"hush""#, &[]).unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        assert!(matches!(
            CloudConfig::parse("{}", |_| None),
            Err(ConfigError::NoAuth)
        ));
        assert!(matches!(
            CloudConfig::parse("[]", |_| None),
            Err(ConfigError::NoObject(_))
        ));
    }
}
