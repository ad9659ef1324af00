//! The image as bytes: an OCI layout, with the manifest that older Dockers read beside it.

use std::io::Write as _;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// All that is in an image.
pub(super) struct Image<'a> {
    pub(super) name: &'a str,
    pub(super) tag: &'a str,
    pub(super) version: &'a str,
    /// As container images call it.
    pub(super) arch: &'a str,
    pub(super) program: &'a [u8],
}

/// A file of the layout that is named by its content.
struct Blob {
    digest: String,
    bytes: Vec<u8>,
}

impl Blob {
    fn of(bytes: Vec<u8>) -> Self {
        Self {
            digest: format!("{:x}", Sha256::digest(&bytes)),
            bytes,
        }
    }

    fn json(value: &Value) -> Self {
        Self::of(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest)
    }

    fn descriptor(&self, kind: &str) -> Value {
        json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"),
            "digest": format!("sha256:{}", self.digest),
            "size": self.bytes.len(),
        })
    }
}

impl Image<'_> {
    /// The archive, and the digest of the image in it.
    pub(super) fn archive(&self) -> std::io::Result<(Vec<u8>, String)> {
        let layer = Blob::of(self.layer()?);
        let config = Blob::json(&self.config(&layer));
        let manifest = Blob::json(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config.descriptor("config.v1+json"),
            "layers": [layer.descriptor("layer.v1.tar")],
        }));
        let mut entry = manifest.descriptor("manifest.v1+json");
        entry["platform"] = json!({"architecture": self.arch, "os": "linux"});
        let reference = format!("{}:{}", self.name, self.tag);
        entry["annotations"] = json!({
            "org.opencontainers.image.ref.name": self.tag,
            "io.containerd.image.name": format!("docker.io/library/{reference}"),
        });
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [entry],
        });
        let of_docker = json!([{
            "Config": config.path(),
            "RepoTags": [reference],
            "Layers": [layer.path()],
        }]);
        let mut blobs = [layer, config, manifest];
        let digest = format!("sha256:{}", blobs[2].digest);
        blobs.sort_by(|one, other| one.digest.cmp(&other.digest));
        let mut tar = Tar::new();
        tar.dir("blobs/")?;
        tar.dir("blobs/sha256/")?;
        for blob in &blobs {
            tar.file(&blob.path(), 0o644, &blob.bytes)?;
        }
        tar.file("index.json", 0o644, index.to_string().as_bytes())?;
        tar.file("manifest.json", 0o644, of_docker.to_string().as_bytes())?;
        tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok((tar.finish()?, digest))
    }

    /// Not compressed: registries do that, and compressors differ. The directories are where the node's are mounted.
    fn layer(&self) -> std::io::Result<Vec<u8>> {
        let mut tar = Tar::new();
        tar.dir("bpffs/")?;
        tar.file(self.name, 0o755, self.program)?;
        tar.dir("host-cgroup/")?;
        tar.dir("run/")?;
        tar.dir("run/calico-azure/")?;
        tar.finish()
    }

    fn config(&self, layer: &Blob) -> Value {
        let label = |name: &str| format!("org.opencontainers.image.{name}");
        json!({
            "architecture": self.arch,
            "os": "linux",
            "config": {
                "User": "0:0",
                "Entrypoint": [format!("/{}", self.name)],
                "WorkingDir": "/",
                "Labels": {
                    label("title"): self.name,
                    label("description"): "Calico policy for Kubernetes on Azure, enforced by eBPF",
                    label("version"): self.version,
                    label("licenses"): "Apache-2.0 AND (Apache-2.0 OR GPL-2.0-only)",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
            "history": [{"created_by": "cargo xtask image"}],
        })
    }
}

/// An archive in which nothing depends on when, where and by whom it was made.
struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn dir(&mut self, path: &str) -> std::io::Result<()> {
        self.entry(path, tar::EntryType::Directory, 0o755, &[])
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, bytes)
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]) -> std::io::Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        self.0.append_data(&mut header, path, bytes)
    }

    fn finish(self) -> std::io::Result<Vec<u8>> {
        let mut bytes = self.0.into_inner()?;
        bytes.flush()?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    const IMAGE: Image<'_> = Image {
        name: "p",
        tag: "1",
        version: "1",
        arch: "amd64",
        program: b"#!",
    };

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        assert_eq!(IMAGE.archive().unwrap(), IMAGE.archive().unwrap());
        let other = Image {
            program: b"##",
            ..IMAGE
        };
        assert_ne!(IMAGE.archive().unwrap().1, other.archive().unwrap().1);
    }

    #[test]
    fn every_blob_is_named_by_its_content_and_all_are_reachable() {
        let (archive, digest) = IMAGE.archive().unwrap();
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, mtime) = (
                entry.path().unwrap().display().to_string(),
                entry.header().mtime().unwrap(),
            );
            assert_eq!(mtime, 0, "{path}");
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(path, bytes);
        }
        let blob = |digest: &Value| {
            let digest = digest.as_str().unwrap().strip_prefix("sha256:").unwrap();
            let bytes = &files[&format!("blobs/sha256/{digest}")];
            assert_eq!(format!("{:x}", Sha256::digest(bytes)), digest);
            bytes.clone()
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["digest"], digest.as_str());
        let manifest: Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
        let config: Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"], json!(["/p"]));
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        blob(&manifest["layers"][0]["digest"]);
        let of_docker: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(of_docker[0]["RepoTags"], json!(["p:1"]));
        assert!(files.contains_key(of_docker[0]["Layers"][0].as_str().unwrap()));
    }
}
