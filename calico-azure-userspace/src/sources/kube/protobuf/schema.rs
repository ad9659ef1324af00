//! Which fields of Kubernetes' own kinds are read, by their numbers. Only its siblings use this.
//!
//! Numbers: `generated.proto` of `k8s.io/api` (`core/v1`, `discovery/v1`, the same in `discovery/v1beta1`) and of `k8s.io/apimachinery`
//! (`pkg/apis/meta/v1`, `pkg/runtime`). They are never given out again. What is read is what `model::api` keeps.

use super::message::Field;
use super::message::Shape::{Bool, Integer, Map, Message, Text, Time};
use crate::model::Kind;

const OWNER: &[Field] = &[
    Field::one(1, "kind", Text),
    Field::one(3, "name", Text),
    Field::one(6, "controller", Bool),
];

const METADATA: Field = Field::one(
    1,
    "metadata",
    Message(&[
        Field::one(1, "name", Text),
        Field::one(2, "generateName", Text),
        Field::one(3, "namespace", Text),
        Field::one(6, "resourceVersion", Text),
        Field::one(9, "deletionTimestamp", Time),
        Field::one(11, "labels", Map),
        Field::one(12, "annotations", Map),
        Field::each(13, "ownerReferences", Message(OWNER)),
    ]),
);

const CONTAINER: &[Field] = &[Field::each(
    6,
    "ports",
    Message(&[
        Field::one(1, "name", Text),
        Field::one(2, "hostPort", Integer),
        Field::one(3, "containerPort", Integer),
        Field::one(4, "protocol", Text),
        Field::one(5, "hostIP", Text),
    ]),
)];

const POD: &[Field] = &[
    METADATA,
    Field::one(
        2,
        "spec",
        Message(&[
            Field::each(2, "containers", Message(CONTAINER)),
            Field::one(8, "serviceAccountName", Text),
            Field::one(9, "serviceAccount", Text),
            Field::one(10, "nodeName", Text),
            Field::one(11, "hostNetwork", Bool),
            Field::each(20, "initContainers", Message(CONTAINER)),
        ]),
    ),
    Field::one(
        3,
        "status",
        Message(&[
            Field::one(1, "phase", Text),
            Field::one(6, "podIP", Text),
            Field::each(12, "podIPs", Message(&[Field::one(1, "ip", Text)])),
        ]),
    ),
];

const NODE: &[Field] = &[
    METADATA,
    Field::one(
        2,
        "spec",
        Message(&[
            Field::one(1, "podCIDR", Text),
            Field::one(3, "providerID", Text),
            Field::each(7, "podCIDRs", Text),
        ]),
    ),
    Field::one(
        3,
        "status",
        Message(&[Field::each(
            5,
            "addresses",
            Message(&[Field::one(1, "type", Text), Field::one(2, "address", Text)]),
        )]),
    ),
];

const ENDPOINT_SLICE: &[Field] = &[
    METADATA,
    Field::each(2, "endpoints", Message(&[Field::each(1, "addresses", Text)])),
    Field::each(
        3,
        "ports",
        Message(&[
            Field::one(1, "name", Text),
            Field::one(2, "protocol", Text),
            Field::one(3, "port", Integer),
            Field::one(4, "appProtocol", Text),
        ]),
    ),
    Field::one(4, "addressType", Text),
];

/// What is read of a kind; `None`: it is read as JSON. Those that are many, and change often.
pub(in super::super) fn of(kind: Kind) -> Option<&'static [Field]> {
    match kind {
        Kind::Pod => Some(POD),
        Kind::Node => Some(NODE),
        Kind::EndpointSlice => Some(ENDPOINT_SLICE),
        _ => None,
    }
}

/// `ListMeta`.
pub(super) const PAGE: &[Field] = &[
    Field::one(2, "resourceVersion", Text),
    Field::one(3, "continue", Text),
];

/// `Status`.
pub(super) const STATUS: &[Field] = &[
    Field::one(3, "message", Text),
    Field::one(4, "reason", Text),
    Field::one(
        5,
        "details",
        Message(&[
            Field::each(4, "causes", Message(&[Field::one(1, "reason", Text)])),
            Field::one(5, "retryAfterSeconds", Integer),
        ]),
    ),
    Field::one(6, "code", Integer),
];
