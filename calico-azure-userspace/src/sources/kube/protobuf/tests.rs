//! What answers say, what they may leave out, and what they must not do: end the agent.

use super::*;
use crate::model::Kind;
use crate::model::api::Said;
use crate::sources::kube::wire;

fn varint(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            bytes.push(low & 0x7f);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

fn bytes(number: usize, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    [varint(number << 3 | 2), varint(content.len()), content.to_vec()].concat()
}

fn number(number: usize, value: usize) -> Vec<u8> {
    [varint(number << 3), varint(value)].concat()
}

fn pair(number: usize, key: &str, value: &str) -> Vec<u8> {
    bytes(number, [bytes(1, key), bytes(2, value)].concat())
}

fn answer(kind: &str, message: impl AsRef<[u8]>) -> Vec<u8> {
    let of = [bytes(1, "v1"), bytes(2, kind)].concat();
    [
        MAGIC.to_vec(),
        bytes(1, of),
        bytes(2, message),
        bytes(3, ""),
        bytes(4, ""),
    ]
    .concat()
}

fn event(said: &str, answer: Vec<u8>) -> Vec<u8> {
    [bytes(1, said), bytes(2, bytes(1, answer))].concat()
}

fn pod_schema() -> (ApiReader, Schema) {
    (ApiReader::new(Some(Kind::Pod)), schema_of(Kind::Pod).unwrap())
}

/// With what API servers write of a pod that has only what it needs, empty fields too, and with fields that nobody knows.
fn pod() -> Vec<u8> {
    let owner = [
        bytes(1, "ReplicaSet"),
        bytes(3, "web-1"),
        bytes(4, "7"),
        bytes(5, "apps/v1"),
        number(6, 1),
    ]
    .concat();
    let metadata = [
        bytes(1, "web-1-x"),
        bytes(2, ""),
        bytes(3, "shop"),
        bytes(4, ""),
        bytes(6, "41"),
        number(7, 0),
        bytes(8, number(1, 1_767_225_600)),
        pair(11, "app", "web"),
        pair(12, "checksum/config", "x"),
        pair(12, "cni.projectcalico.org/podIP", "10.0.0.9/32"),
        pair(11, "empty", ""),
        bytes(13, owner),
        bytes(17, [bytes(1, "kubelet"), bytes(7, bytes(1, "{}"))].concat()),
    ];
    let port = [
        bytes(1, "http"),
        number(2, 0),
        number(3, 8080),
        bytes(4, "TCP"),
        bytes(5, ""),
    ]
    .concat();
    let nameless = [bytes(1, ""), number(3, 9090), bytes(4, "TCP")].concat();
    let container = [
        bytes(1, "app"),
        bytes(6, port),
        bytes(7, bytes(1, "KEY")),
        bytes(6, nameless),
    ]
    .concat();
    let spec = [
        bytes(1, bytes(1, "volume")),
        bytes(2, container),
        bytes(8, "web"),
        bytes(9, "web"),
        bytes(10, "node-1"),
        number(11, 0),
        bytes(2, bytes(1, "sidecar")),
        bytes(
            20,
            bytes(6, [bytes(1, "init"), number(3, 53), bytes(4, "UDP")].concat()),
        ),
        // Eight and four bytes, of which nothing is read.
        vec![15 << 3 | 1, 1, 2, 3, 4, 5, 6, 7, 8],
        vec![15 << 3 | 5, 1, 2, 3, 4],
    ];
    let status = [
        bytes(1, "Running"),
        bytes(2, bytes(1, "Ready")),
        bytes(6, "10.0.0.9"),
        bytes(12, bytes(1, "10.0.0.9")),
        bytes(12, bytes(1, "fd00::9")),
    ];
    [
        bytes(1, metadata.concat()),
        bytes(2, spec.concat()),
        bytes(3, status.concat()),
    ]
    .concat()
}

const JSON: &str = r#"{"metadata": {"name": "web-1-x", "namespace": "shop", "resourceVersion": "41",
    "labels": {"app": "web", "empty": ""}, "annotations": {"cni.projectcalico.org/podIP": "10.0.0.9/32", "checksum/config": "x"},
    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "7", "controller": true}]},
  "spec": {"serviceAccountName": "web", "serviceAccount": "web", "nodeName": "node-1",
    "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"},
                                             {"containerPort": 9090, "protocol": "TCP"}]}, {"name": "sidecar"}],
    "initContainers": [{"ports": [{"name": "init", "containerPort": 53, "protocol": "UDP"}]}]},
  "status": {"phase": "Running", "podIP": "10.0.0.9", "podIPs": [{"ip": "10.0.0.9"}, {"ip": "fd00::9"}]}}"#;

fn said(object: ApiObject<'_>) -> Said {
    object.read("v1", Kind::Pod)
}

#[test]
fn an_object_says_the_same_as_its_json() {
    let event = event("ADDED", answer("Pod", pod()));
    let Line::Upsert(object) = super::event(&event, pod_schema()).unwrap() else {
        panic!("not an upsert");
    };
    assert_eq!(object.resource_version(), "41");
    let found = said(object);
    let text = format!("{{\"type\":\"ADDED\",\"object\":{JSON}}}");
    let Line::Upsert(object) = wire::line(text.as_bytes(), ApiReader::new(Some(Kind::Pod))).unwrap() else {
        panic!("not an upsert");
    };
    let expected = said(object);
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    assert!(expected.resource.is_some());
    assert_eq!(found.resource, expected.resource);
}

#[test]
fn pages_hand_over_their_objects_and_tell_where_the_next_begins() {
    let metadata = [bytes(1, ""), bytes(2, "9"), bytes(3, "more")].concat();
    let list = [
        bytes(1, metadata),
        bytes(2, pod()),
        bytes(2, bytes(1, bytes(1, "b"))),
    ]
    .concat();
    let mut names = Vec::new();
    let text = answer("PodList", list);
    let page = page(&text, pod_schema(), &mut |object| {
        names.push(object.name().to_owned());
    })
    .unwrap();
    assert_eq!(
        (page.resource_version.as_str(), page.next.as_str()),
        ("9", "more")
    );
    assert_eq!(names, ["web-1-x", "b"]);
}

#[test]
fn watches_say_what_they_say_in_json() {
    let end = [bytes(6, "77"), pair(12, "k8s.io/initial-events-end", "true")].concat();
    let bookmark = event("BOOKMARK", answer("Pod", bytes(1, end)));
    let line = super::event(&bookmark, pod_schema()).unwrap();
    assert!(
        matches!(line, Line::Bookmark(object) if object.ends_initial_events() && object.resource_version() == "77")
    );
    let deleted = event("DELETED", answer("Pod", pod()));
    let line = super::event(&deleted, pod_schema()).unwrap();
    assert!(matches!(line, Line::Delete(object) if object.name() == "web-1-x"));
    let causes = bytes(4, bytes(1, "ResourceVersionTooLarge"));
    let details = bytes(5, [causes, number(5, 3)].concat());
    let status = answer(
        "Status",
        [
            bytes(2, "Failure"),
            bytes(3, "why"),
            bytes(4, "Timeout"),
            details,
            number(6, 504),
        ]
        .concat(),
    );
    let error = event("ERROR", status);
    let Line::Error(status) = super::event(&error, pod_schema()).unwrap() else {
        panic!("not an error");
    };
    assert_eq!((status.message.as_str(), status.code), ("why", 504));
    assert!(status.is_expired());
    assert_eq!(status.retry_after(), Some(std::time::Duration::from_secs(3)));
    assert!(super::event(&event("SUNG", answer("Pod", pod())), pod_schema()).is_err());
}

#[test]
fn what_is_something_else_is_refused() {
    for (answer, expected) in [
        (b"{\"kind\":\"PodList\"}".to_vec(), "not Kubernetes' Protobuf"),
        (MAGIC.to_vec(), "\"\" where a Status"),
        ([MAGIC, &bytes(3, "gzip")].concat(), "gzip"),
        (answer("Pod", pod()), "\"Pod\" where a Status"),
        ([MAGIC, &[0x0a, 0x7f]].concat(), "127 bytes were announced"),
        ([MAGIC, &[0x80]].concat(), "no end"),
        ([MAGIC, &[0xff; 11]].concat(), "64 bits"),
        ([MAGIC, &[0x0b]].concat(), "wire type 3"),
    ] {
        let error = status(&answer).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (wrong, expected) in [
        (answer("Status", ""), "\"Status\" where a list"),
        (answer("PodList", number(2, 7)), "a number where an object"),
    ] {
        let error = page(&wrong, pod_schema(), &mut |_| panic!("an object"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
    // A number where text should be.
    let wrong = answer("Pod", bytes(1, number(1, 7)));
    assert!(super::event(&event("ADDED", wrong), pod_schema()).is_err());
}

/// Cut off anywhere, or with any bit turned: an error, or an object, and no end of the agent.
#[test]
fn nothing_that_is_garbled_is_fatal() {
    let whole = event("ADDED", answer("Pod", pod()));
    for length in 0..whole.len() {
        assert!(
            super::event(&whole[..length], pod_schema()).is_err(),
            "{length} bytes"
        );
    }
    let (mut read, mut refused) = (0, 0);
    for at in 0..whole.len() * 8 {
        let mut bytes = whole.clone();
        bytes[at / 8] ^= 1 << (at % 8);
        match super::event(&bytes, pod_schema()) {
            Ok(Line::Upsert(object)) => {
                let _whatever = said(object);
                read += 1;
            }
            Ok(_) => read += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(read > 100 && refused > 100, "{read} {refused}");
}
