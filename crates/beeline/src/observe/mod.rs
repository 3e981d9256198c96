//! What users get to see, made from what the datapath tells. The structures here are the `--json`
//! output.

pub mod conns;
pub mod event;
pub mod filter;
#[cfg(test)]
pub(crate) mod fixture;
pub mod gain;
pub mod hist;
pub mod metrics;
pub mod picture;
pub mod rates;
pub mod route;
pub mod sort;
pub mod status;
