//! What users see of the datapath: flow records. Never changes anything.

pub mod flow;

pub use flow::{FlowContext, FlowRecord, StagedVerdict};
