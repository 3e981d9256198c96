//! What users get to see, made from what the datapath tells. The structures here are the `--json`
//! output.

pub mod conns;
pub mod event;
pub mod metrics;
pub mod status;
