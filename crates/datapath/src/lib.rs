//! Beeline's BPF objects and the verbs over them: load, attach, look, drain, detach.
//!
//! This is the only crate with `unsafe`, libbpf and C. A path is one `bpf/<path>.bpf.c` and one
//! `src/<path>.rs`; what crosses between the two is defined in `bpf/abi.h` alone.

pub mod abi;
pub mod adopt;
pub mod attach;
pub mod capture;
mod chosen;
pub mod cost;
pub mod drain;
pub mod earlier;
pub mod ends;
mod error;
pub mod events;
pub mod hist;
pub mod holders;
pub mod keepalive;
mod maps;
mod marks;
mod netns;
mod object;
pub mod pins;
pub mod probe;
pub mod programs;
pub mod quiesce;
mod release;
pub mod rules;
pub mod selftest;
pub mod socket;
pub mod splice;
mod symbols;
pub mod tidy;

pub use error::{Error, Result};
pub use maps::{Maps, Size};
