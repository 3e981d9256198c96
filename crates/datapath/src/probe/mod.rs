//! What this kernel and host can do: facts only.
//!
//! Facts are found by trying wherever that is possible, since distributions carry features and
//! faults back and forth between versions. Nothing here judges: what a missing thing means, and
//! what to do about it, is decided by whoever asks.
//!
//! `Err` means that something is broken; that this kernel cannot do a thing is a value. Nothing
//! that is tried stays behind: no pins, no files, no attachments.

mod attempt;
mod capabilities;
mod cgroup;
mod fionread;
mod host;
mod iterators;
mod pid_namespace;
mod programs;
mod redirect;
mod socket_path;
mod tracing;

pub use attempt::{Attempt, Refusal, asked};
pub use capabilities::capabilities;
pub use cgroup::{CgroupMounts, cgroup_mounts};
pub use fionread::{FionreadReport, fionread};
pub use host::{
    TcpMemory, btf, cpus, initial_user_namespace, kernel_release, lockdown, tcp_memory,
    tcp_memory_used,
};
pub use iterators::{Iterators, iterators};
pub use pid_namespace::{PidNamespace, pid_namespace};
pub use programs::{AttachMode, Attached, Kind, Program, loaded, sock_ops_of};
pub use redirect::{RedirectReport, redirect};
pub use socket_path::{Feature, SocketPathReport, counts_unread, features, socket_path};
pub use tracing::{Tracing, tracing};
