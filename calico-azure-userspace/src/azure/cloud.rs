//! Azure's clouds: where their Resource Manager and their directory are.

/// Endpoints of one cloud, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cloud {
    /// The name that `azure.json` and the instance metadata service give it.
    pub name: String,
    /// Azure Resource Manager; also the audience of its tokens.
    pub resource_manager: String,
    /// Microsoft Entra ID.
    pub directory: String,
}

/// A cloud that nobody here knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cloud {0:?} is none of AzurePublicCloud, AzureChinaCloud, AzureUSGovernmentCloud; give its resourceManagerEndpoint"
)]
pub struct UnknownCloud(pub String);

impl Cloud {
    /// The cloud of that name, in any case; an empty one is the public cloud. `endpoint` replaces its Resource Manager, and is all
    /// there is to know of a cloud with another name.
    ///
    /// # Errors
    /// [`UnknownCloud`].
    pub fn named(name: &str, endpoint: Option<&str>) -> Result<Self, UnknownCloud> {
        // cloud-provider-azure, pkg/azclient/cloud.go and the `azure-sdk-for-go` environments.
        let known = match name.to_ascii_uppercase().as_str() {
            "" | "AZUREPUBLICCLOUD" | "AZURECLOUD" => Some((
                "https://management.azure.com",
                "https://login.microsoftonline.com",
            )),
            "AZURECHINACLOUD" => Some((
                "https://management.chinacloudapi.cn",
                "https://login.chinacloudapi.cn",
            )),
            "AZUREUSGOVERNMENTCLOUD" | "AZUREUSGOVERNMENT" => Some((
                "https://management.usgovcloudapi.net",
                "https://login.microsoftonline.us",
            )),
            _ => None,
        };
        let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
        let (manager, directory) = match (known, endpoint) {
            (Some((_, directory)), Some(endpoint)) => (endpoint, directory),
            (Some(known), None) => known,
            (None, Some(endpoint)) => (endpoint, "https://login.microsoftonline.com"),
            (None, None) => return Err(UnknownCloud(name.to_owned())),
        };
        Ok(Self {
            name: if name.is_empty() { "AzurePublicCloud" } else { name }.to_owned(),
            resource_manager: manager.trim_end_matches('/').to_owned(),
            directory: directory.to_owned(),
        })
    }
}
