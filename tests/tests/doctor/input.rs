//! What the doctor is given: files, flags, the environment.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;

use calico_azure_tests::arm::FakeArm;
use calico_azure_tests::lab::binary;
use serde_json::json;

#[test]
fn wrong_input_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = |config: &str, more: &[&str]| {
        let path = dir.path().join("azure.json");
        std::fs::write(&path, config).unwrap();
        let nodes = dir.path().join("nodes.json");
        std::fs::write(&nodes, r#"{"kind": "List", "items": []}"#).unwrap();
        let mut command = Command::new(binary().unwrap());
        command
            .arg("doctor")
            .arg("--cloud-config")
            .arg(&path)
            .arg("--nodes")
            .arg(&nodes)
            .args(more);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let managed = r#""subscriptionId":"s","resourceGroup":"g","useManagedIdentityExtension":true"#;
    for (config, more, said) in [
        ("{", &[][..], "azure.json: is neither JSON nor YAML"),
        ("{}", &[], "azure.json: does not say who we are"),
        (
            r#"{"useManagedIdentityExtension":true}"#,
            &[],
            "azure.json: subscriptionId is missing",
        ),
        (&format!("{{{managed}}}"), &[], "routeTableName is missing"),
        (
            &format!("{{{managed}}}"),
            &["--networking", "cilium"],
            "expected auto, udr, flannel, azure-cni or host-local",
        ),
        (
            &format!("{{{managed}}}"),
            &["--check", "nonsense"],
            "no such check; there are: table-missing,",
        ),
        (
            &format!("{{{managed}}}"),
            &["--cluster-cidr", "10.0.0.0"],
            "--cluster-cidr",
        ),
    ] {
        let (code, text) = run(config, more);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

/// A proxy that lets nobody through; what it was asked for, a request's lines each.
fn proxy() -> (String, mpsc::Receiver<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://someone:opensesame@{}", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    // Ends with the test.
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(&stream).lines().map_while(Result::ok);
            let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let _gone = stream.write_all(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n");
            if tell.send(lines).is_err() {
                return;
            }
        }
    });
    (url, told)
}

#[test]
fn azure_is_asked_through_the_proxy_and_the_metadata_service_never() {
    let arm = FakeArm::start().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut config =
        arm.cloud_config(&json!({"useManagedIdentityExtension": true, "userAssignedIdentityID": "me"}));
    config["resourceManagerEndpoint"] = json!("https://management.invalid");
    let (azure, nodes) = (dir.path().join("azure.json"), dir.path().join("nodes.json"));
    std::fs::write(&azure, config.to_string()).unwrap();
    std::fs::write(&nodes, r#"{"kind": "List", "items": []}"#).unwrap();
    let (proxy, asked) = proxy();
    let run = |without: &str| {
        let granted = arm.store().granted;
        let output = Command::new(binary().unwrap())
            .args(["doctor", "--cluster-cidr", "10.244.0.0/16", "--cloud-config"])
            .arg(&azure)
            .arg("--nodes")
            .arg(&nodes)
            .env("AZURE_POD_IDENTITY_AUTHORITY_HOST", arm.url())
            .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"].map(|name| (name, &proxy)))
            .envs(["NO_PROXY", "no_proxy"].map(|name| (name, without)))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(!text.contains("opensesame"), "{text}");
        assert!(arm.store().granted > granted, "a token is asked for directly");
        asked.try_iter().collect::<Vec<_>>()
    };
    let seen = run("");
    assert!(!seen.is_empty());
    for lines in seen {
        assert_eq!(lines[0], "CONNECT management.invalid:443 HTTP/1.1");
        // RFC 7617: the name and the password, in Base64.
        let who = lines.iter().find_map(|line| {
            line.to_lowercase()
                .starts_with("proxy-authorization:")
                .then(|| &line[20..])
        });
        assert_eq!(
            who.map(str::trim),
            Some("Basic c29tZW9uZTpvcGVuc2VzYW1l"),
            "{lines:?}"
        );
    }
    assert_eq!(run("management.invalid"), Vec::<Vec<String>>::new());
}
