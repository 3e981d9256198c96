//! Beeline: the agent and the command line over the datapath.

#![forbid(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod config;
pub mod control;
pub mod explain;
pub mod instance;
pub mod observe;
pub mod policy;
pub mod selftest;
pub mod workload;
