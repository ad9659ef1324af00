//! The numbers of fields, from `generated.proto` of Kubernetes (`core/v1`, `discovery/v1`, `meta/v1`): of those that tests and benchmarks write.
//! Only its parent uses this.

/// What a field of JSON becomes.
#[derive(Clone, Copy)]
pub(super) enum To {
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
pub(super) type Row = (&'static str, u64, To);

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
pub(super) fn rows(kind: &str) -> Option<&'static [Row]> {
    match kind {
        "Pod" => Some(POD),
        "Node" => Some(NODE),
        "EndpointSlice" => Some(ENDPOINT_SLICE),
        _ => None,
    }
}
