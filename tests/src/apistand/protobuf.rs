//! Objects as an API server writes them in Protobuf, from their JSON. The numbers are written down here a second time, from
//! `generated.proto` of Kubernetes, so that what the product reads is not measured by its own tables.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, Value};

/// What a field of JSON becomes.
#[derive(Clone, Copy)]
enum To {
    Text,
    Bool,
    Integer,
    Time,
    /// `resource.Quantity`, or the bytes of `FieldsV1`: a message with one field.
    Wrapped,
    /// A number or a name.
    Port,
    Texts,
    Quantities,
    Message(&'static [Row]),
}

/// Of a message: what it is called in JSON, its number, and what it becomes. Without a name: a message whose fields JSON has in this one.
type Row = (&'static str, u64, To);

use To::{Bool, Integer, Message, Port, Quantities, Text, Texts, Time, Wrapped};

const METADATA: To = Message(&[
    ("name", 1, Text),
    ("generateName", 2, Text),
    ("namespace", 3, Text),
    ("uid", 5, Text),
    ("resourceVersion", 6, Text),
    ("creationTimestamp", 8, Time),
    ("deletionTimestamp", 9, Time),
    ("labels", 11, Texts),
    ("annotations", 12, Texts),
    (
        "ownerReferences",
        13,
        Message(&[
            ("kind", 1, Text),
            ("name", 3, Text),
            ("uid", 4, Text),
            ("apiVersion", 5, Text),
            ("controller", 6, Bool),
            ("blockOwnerDeletion", 7, Bool),
        ]),
    ),
    (
        "managedFields",
        17,
        Message(&[
            ("manager", 1, Text),
            ("operation", 2, Text),
            ("apiVersion", 3, Text),
            ("time", 4, Time),
            ("fieldsType", 6, Text),
            ("fieldsV1", 7, Wrapped),
        ]),
    ),
]);

const PROBE: To = Message(&[
    (
        "",
        1,
        Message(&[(
            "httpGet",
            2,
            Message(&[("path", 1, Text), ("port", 2, Port), ("scheme", 4, Text)]),
        )]),
    ),
    ("timeoutSeconds", 3, Integer),
    ("periodSeconds", 4, Integer),
    ("successThreshold", 5, Integer),
    ("failureThreshold", 6, Integer),
]);

const CONTAINER: To = Message(&[
    ("name", 1, Text),
    ("image", 2, Text),
    ("args", 4, Text),
    (
        "ports",
        6,
        Message(&[
            ("name", 1, Text),
            ("hostPort", 2, Integer),
            ("containerPort", 3, Integer),
            ("protocol", 4, Text),
            ("hostIP", 5, Text),
        ]),
    ),
    ("env", 7, Message(&[("name", 1, Text), ("value", 2, Text)])),
    (
        "resources",
        8,
        Message(&[("limits", 1, Quantities), ("requests", 2, Quantities)]),
    ),
    (
        "volumeMounts",
        9,
        Message(&[("name", 1, Text), ("readOnly", 2, Bool), ("mountPath", 3, Text)]),
    ),
    ("livenessProbe", 10, PROBE),
    ("readinessProbe", 11, PROBE),
    ("terminationMessagePath", 13, Text),
    ("imagePullPolicy", 14, Text),
    (
        "securityContext",
        15,
        Message(&[
            ("capabilities", 1, Message(&[("add", 1, Text), ("drop", 2, Text)])),
            ("privileged", 2, Bool),
            ("runAsNonRoot", 5, Bool),
            ("allowPrivilegeEscalation", 7, Bool),
        ]),
    ),
    ("terminationMessagePolicy", 20, Text),
]);

const CONFIG_MAP: &[Row] = &[
    ("", 1, Message(&[("name", 1, Text)])),
    ("items", 2, Message(&[("key", 1, Text), ("path", 2, Text)])),
    ("defaultMode", 3, Integer),
];

const VOLUME: To = Message(&[
    ("name", 1, Text),
    (
        "",
        2,
        Message(&[
            ("configMap", 19, Message(CONFIG_MAP)),
            (
                "projected",
                26,
                Message(&[
                    (
                        "sources",
                        1,
                        Message(&[
                            ("configMap", 3, Message(CONFIG_MAP)),
                            (
                                "serviceAccountToken",
                                4,
                                Message(&[("expirationSeconds", 2, Integer), ("path", 3, Text)]),
                            ),
                        ]),
                    ),
                    ("defaultMode", 2, Integer),
                ]),
            ),
        ]),
    ),
]);

const POD_SPEC: To = Message(&[
    ("volumes", 1, VOLUME),
    ("containers", 2, CONTAINER),
    ("restartPolicy", 3, Text),
    ("terminationGracePeriodSeconds", 4, Integer),
    ("dnsPolicy", 6, Text),
    ("serviceAccountName", 8, Text),
    ("serviceAccount", 9, Text),
    ("nodeName", 10, Text),
    ("hostNetwork", 11, Bool),
    ("schedulerName", 19, Text),
    ("initContainers", 20, CONTAINER),
    (
        "tolerations",
        22,
        Message(&[
            ("key", 1, Text),
            ("operator", 2, Text),
            ("value", 3, Text),
            ("effect", 4, Text),
            ("tolerationSeconds", 5, Integer),
        ]),
    ),
    ("priority", 25, Integer),
    ("enableServiceLinks", 30, Bool),
    ("preemptionPolicy", 31, Text),
]);

const CONDITIONS: To = Message(&[
    ("type", 1, Text),
    ("status", 2, Text),
    ("lastProbeTime", 3, Time),
    ("lastHeartbeatTime", 3, Time),
    ("lastTransitionTime", 4, Time),
    ("reason", 5, Text),
    ("message", 6, Text),
]);

const STATE: To = Message(&[("running", 2, Message(&[("startedAt", 1, Time)]))]);

const POD: &[Row] = &[
    ("metadata", 1, METADATA),
    ("spec", 2, POD_SPEC),
    (
        "status",
        3,
        Message(&[
            ("phase", 1, Text),
            ("conditions", 2, CONDITIONS),
            ("hostIP", 5, Text),
            ("podIP", 6, Text),
            ("startTime", 7, Time),
            (
                "containerStatuses",
                8,
                Message(&[
                    ("name", 1, Text),
                    ("state", 2, STATE),
                    ("lastState", 3, STATE),
                    ("ready", 4, Bool),
                    ("restartCount", 5, Integer),
                    ("image", 6, Text),
                    ("imageID", 7, Text),
                    ("containerID", 8, Text),
                    ("started", 9, Bool),
                ]),
            ),
            ("qosClass", 9, Text),
            ("podIPs", 12, Message(&[("ip", 1, Text)])),
        ]),
    ),
];

const NODE: &[Row] = &[
    ("metadata", 1, METADATA),
    (
        "spec",
        2,
        Message(&[
            ("podCIDR", 1, Text),
            ("providerID", 3, Text),
            ("podCIDRs", 7, Text),
        ]),
    ),
    (
        "status",
        3,
        Message(&[
            ("conditions", 4, CONDITIONS),
            (
                "addresses",
                5,
                Message(&[("type", 1, Text), ("address", 2, Text)]),
            ),
            (
                "nodeInfo",
                7,
                Message(&[
                    ("kernelVersion", 4, Text),
                    ("osImage", 5, Text),
                    ("kubeletVersion", 7, Text),
                ]),
            ),
            (
                "images",
                8,
                Message(&[("names", 1, Text), ("sizeBytes", 2, Integer)]),
            ),
        ]),
    ),
];

const ENDPOINT_SLICE: &[Row] = &[
    ("metadata", 1, METADATA),
    (
        "endpoints",
        2,
        Message(&[
            ("addresses", 1, Text),
            (
                "conditions",
                2,
                Message(&[("ready", 1, Bool), ("serving", 2, Bool), ("terminating", 3, Bool)]),
            ),
            ("hostname", 3, Text),
            ("nodeName", 6, Text),
            ("zone", 7, Text),
        ]),
    ),
    (
        "ports",
        3,
        Message(&[
            ("name", 1, Text),
            ("protocol", 2, Text),
            ("port", 3, Integer),
            ("appProtocol", 4, Text),
        ]),
    ),
    ("addressType", 4, Text),
];

/// Of kinds that are served in Protobuf.
fn rows(kind: &str) -> Option<&'static [Row]> {
    match kind {
        "Pod" => Some(POD),
        "Node" => Some(NODE),
        "EndpointSlice" => Some(ENDPOINT_SLICE),
        _ => None,
    }
}

pub(super) fn serves((_, kind): (&str, &str)) -> bool {
    rows(kind).is_some()
}

/// The object's message, without what an answer has around it; `None` for kinds that are served in JSON only.
///
/// # Panics
/// If the object has a field that nobody wrote down here, or one that no API server would let it have.
pub(super) fn object(object: &Value) -> Option<Vec<u8>> {
    let kind = object["kind"].as_str().unwrap_or_default();
    Some(message(object, rows(kind)?))
}

fn message(value: &Value, rows: &'static [Row]) -> Vec<u8> {
    let empty = Map::new();
    let entries = value.as_object().unwrap_or(&empty);
    let mut bytes = Vec::new();
    let mut known = vec!["apiVersion", "kind"];
    for (name, number, to) in rows {
        match to {
            Message(inner) if name.is_empty() => {
                let of_inner = |key: &str| names(inner).any(|name| name == key);
                let own: Map<String, Value> = entries
                    .clone()
                    .into_iter()
                    .filter(|(key, _)| of_inner(key))
                    .collect();
                known.extend(names(inner));
                if !own.is_empty() {
                    put(&mut bytes, *number, &message(&Value::Object(own), inner));
                }
            }
            to => {
                known.push(name);
                for item in items(entries.get(*name)) {
                    field(&mut bytes, *number, *to, item);
                }
            }
        }
    }
    if let Some(key) = entries.keys().find(|key| !known.contains(&key.as_str())) {
        panic!("the stand-in has no number for {key:?} of {value}");
    }
    bytes
}

fn names(rows: &'static [Row]) -> impl Iterator<Item = &'static str> {
    rows.iter()
        .map(|(name, ..)| *name)
        .filter(|name| !name.is_empty())
}

fn items(value: Option<&Value>) -> &[Value] {
    match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(items)) => items,
        Some(value) => std::slice::from_ref(value),
    }
}

fn field(bytes: &mut Vec<u8>, number: u64, to: To, value: &Value) {
    let text = || value.as_str().unwrap_or_else(|| panic!("text expected: {value}"));
    let integer = |value: &Value| {
        value
            .as_i64()
            .unwrap_or_else(|| panic!("a number expected: {value}"))
    };
    match to {
        Text => put(bytes, number, text().as_bytes()),
        Bool => put_number(
            bytes,
            number,
            u64::from(value.as_bool().unwrap_or_else(|| panic!("{value}"))),
        ),
        Integer => put_number(bytes, number, integer(value).cast_unsigned()),
        Time => {
            let time: Timestamp = text().parse().unwrap_or_else(|error| panic!("{value}: {error}"));
            let mut inner = Vec::new();
            put_number(&mut inner, 1, time.as_second().cast_unsigned());
            put_number(&mut inner, 2, 0);
            put(bytes, number, &inner);
        }
        Wrapped => {
            let mut inner = Vec::new();
            put(
                &mut inner,
                1,
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), str::to_owned)
                    .as_bytes(),
            );
            put(bytes, number, &inner);
        }
        Port => {
            let mut inner = Vec::new();
            put_number(&mut inner, 1, u64::from(value.is_string()));
            put_number(&mut inner, 2, value.as_u64().unwrap_or_default());
            put(&mut inner, 3, value.as_str().unwrap_or_default().as_bytes());
            put(bytes, number, &inner);
        }
        Texts | Quantities => {
            let inner = if matches!(to, Texts) { Text } else { Wrapped };
            for (key, value) in value.as_object().into_iter().flatten() {
                let mut pair = Vec::new();
                put(&mut pair, 1, key.as_bytes());
                field(&mut pair, 2, inner, value);
                put(bytes, number, &pair);
            }
        }
        Message(rows) => put(bytes, number, &message(value, rows)),
    }
}

fn varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let [low, ..] = value.to_le_bytes();
        value >>= 7;
        if value == 0 {
            return bytes.push(low & 0x7f);
        }
        bytes.push(low | 0x80);
    }
}

fn put_number(bytes: &mut Vec<u8>, number: u64, value: u64) {
    varint(bytes, number << 3);
    varint(bytes, value);
}

fn put(bytes: &mut Vec<u8>, number: u64, content: &[u8]) {
    varint(bytes, number << 3 | 2);
    varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// What an answer is: four bytes, and what says what follows.
pub(super) fn answer((api_version, kind): (&str, &str), message: &[u8]) -> Vec<u8> {
    let mut of = Vec::new();
    put(&mut of, 1, api_version.as_bytes());
    put(&mut of, 2, kind.as_bytes());
    let mut bytes = b"k8s\0".to_vec();
    put(&mut bytes, 1, &of);
    put(&mut bytes, 2, message);
    put(&mut bytes, 3, b"");
    put(&mut bytes, 4, b"");
    bytes
}

/// A page of a list, of objects' messages.
pub(super) fn page<'m>(
    (api_version, kind): (&str, &str),
    version: u64,
    next: &str,
    items: impl Iterator<Item = &'m [u8]>,
) -> Vec<u8> {
    let mut metadata = Vec::new();
    put(&mut metadata, 1, b"");
    put(&mut metadata, 2, version.to_string().as_bytes());
    put(&mut metadata, 3, next.as_bytes());
    let mut list = Vec::new();
    put(&mut list, 1, &metadata);
    items.for_each(|item| put(&mut list, 2, item));
    answer((api_version, &format!("{kind}List")), &list)
}

/// An event of a watch about what an answer would say, with its length before it.
pub(super) fn event(said: &str, answer: &[u8]) -> Vec<u8> {
    let mut raw = Vec::new();
    put(&mut raw, 1, answer);
    let mut event = Vec::new();
    put(&mut event, 1, said.as_bytes());
    put(&mut event, 2, &raw);
    let mut bytes = u32::try_from(event.len())
        .unwrap_or(u32::MAX)
        .to_be_bytes()
        .to_vec();
    bytes.append(&mut event);
    bytes
}

/// `Status`, from its JSON.
pub(super) fn status(status: &Value) -> Vec<u8> {
    const STATUS: &[Row] = &[
        ("metadata", 1, Message(&[])),
        ("status", 2, Text),
        ("message", 3, Text),
        ("reason", 4, Text),
        ("code", 6, Integer),
    ];
    answer(("v1", "Status"), &message(status, STATUS))
}
