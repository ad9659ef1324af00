//! Keys, certificates and tokens of one server.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

use super::{ApiError, Result};

/// Files that the server reads, and what its clients must know.
#[derive(Debug)]
pub(super) struct Certificates {
    /// The authority's certificate, PEM.
    pub(super) authority: String,
    pub(super) server_certificate: PathBuf,
    pub(super) server_key: PathBuf,
    /// Signs tokens of service accounts.
    pub(super) issuer_key: PathBuf,
    pub(super) issuer_public_key: PathBuf,
    /// Who has which token.
    pub(super) tokens: PathBuf,
    pub(super) admin_token: String,
}

impl Certificates {
    pub(super) fn create(dir: &Path) -> Result<Self> {
        let server = Server::create(dir)?;
        let issuer_key = KeyPair::generate()?;
        // As good as a random one: whoever can read this file may have it.
        let admin_token = sum(&KeyPair::generate()?.serialize_der());
        Ok(Self {
            authority: server.authority,
            server_certificate: server.certificate,
            server_key: server.key,
            issuer_key: write(dir, "issuer.key", &issuer_key.serialize_pem())?,
            issuer_public_key: write(dir, "issuer.pub", &issuer_key.public_key_pem())?,
            tokens: write(
                dir,
                "tokens.csv",
                &format!("{admin_token},admin,admin,system:masters\n"),
            )?,
            admin_token,
        })
    }

    /// Replaces the authority and what it signed. Tokens stay.
    pub(super) fn renew(&mut self, dir: &Path) -> Result<()> {
        self.authority = Server::create(dir)?.authority;
        Ok(())
    }
}

/// What clients know the server by.
struct Server {
    authority: String,
    certificate: PathBuf,
    key: PathBuf,
}

impl Server {
    fn create(dir: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "certificate authority of a test");
        let key = KeyPair::generate()?;
        let authority = params.self_signed(&key)?.pem();
        let issuer = Issuer::new(params, key);
        let key = KeyPair::generate()?;
        let names = ["127.0.0.1", "localhost"].map(str::to_owned);
        let certificate = CertificateParams::new(names)?.signed_by(&key, &issuer)?;
        Ok(Self {
            authority,
            certificate: write(dir, "server.pem", &certificate.pem())?,
            key: write(dir, "server.key", &key.serialize_pem())?,
        })
    }
}

fn sum(bytes: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    format!("{:x}", Sha256::digest(bytes))
}

fn write(dir: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = dir.join(name);
    fs::write(&path, text).map_err(ApiError::io(path.display().to_string()))?;
    Ok(path)
}
