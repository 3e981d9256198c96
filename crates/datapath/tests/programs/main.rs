//! Programs that people run, unmodified: they do the same with Beeline as without, and what may be redirected is.
//!
//! Those that `scripts/setup.sh test` does not install are left to `make test-programs`.

#[path = "../common/mod.rs"]
mod common;
mod cpython;
mod databases;
mod iperf3;
mod redirected;
mod relay;
mod servers;
mod ssh;
mod stage;
mod tokio_relay;
mod web;
