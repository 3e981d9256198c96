//! Pods, bridges, NAT, cgroups and traffic on one host, for kernel tests, the demo and benchmarks.
//!
//! Everything is a guard: dropping it removes what it made, also while unwinding. What the kernel can clean up by
//! itself is built so that it does when the process is killed: namespaces have no name in the file system, so links,
//! addresses, rules and sockets go with the last file descriptor, and programs die with the thread that runs them.
//! Only an empty cgroup can stay behind; [`Cgroup::create`] removes those of dead processes.
//!
//! ```no_run
//! # fn main() -> testbed::Result<()> {
//!use testbed::{Node, traffic::{accept, rr}};
//! let node = Node::new()?;
//! let (web, client) = (node.pod("web")?, node.pod("client")?);
//!let (listener, addr) = web.listen((web.ip(), 0))?;
//! let server = web.spawn(move || rr::serve(&accept(&listener)?, 64))?;
//!let times = rr::client(&client.connect(addr)?, 64, 1000)?;
//! server.join()??;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod cgroup;
mod counters;
mod error;
pub mod isolate;
pub mod link;
pub mod nat;
pub mod netns;
pub mod node;
pub mod process;
pub mod sidecar;
pub mod traffic;
pub mod wait;

pub use cgroup::{Cgroup, cgroup2_mount};
pub use error::{Error, Result};
pub use nat::{Masquerade, Service};
pub use netns::NetNs;
pub use node::{Node, Outside, Pod};
pub use process::ChildGuard;
pub use wait::wait_for;
