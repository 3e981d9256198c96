//! What `detach` and `retire` have in common: progress, and what holds them up.

use anyhow::Result;
use datapath::drain::{Held, HeldBy, Progress};
use datapath::quiesce::Sender;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::output;
use crate::control;
use crate::instance::Instance;
use crate::workload::Workloads;

/// Sockets that are done, on standard error.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// `doing` is what is done with the sockets.
    pub(super) fn new(doing: &str) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:40} {pos}/{len} sockets  {elapsed}")
            .expect("the template is well-formed");
        Self(
            ProgressBar::new(0)
                .with_style(style)
                .with_message(doing.to_owned()),
        )
    }

    pub(super) fn show(&self, progress: Progress) {
        self.0.set_length(progress.before as u64);
        self.0
            .set_position(progress.before.saturating_sub(progress.left) as u64);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// A line for each socket, below what was said of them all.
pub(super) fn list(instance: &Instance, held: &[Held]) -> Result<()> {
    let workloads = Workloads::find(&control::names(instance));
    for held in held {
        output::line(&format!("  {}", describe(held, &workloads)))?;
    }
    Ok(())
}

fn describe(held: &Held, workloads: &Workloads) -> String {
    let (local, remote) = held.end.endpoints.addrs();
    let label = workloads.of(held.end.inode, held.end.cgroup_id).label();
    let why = match &held.by {
        HeldBy::Unread => format!("has not read {}", output::bytes(held.end.unread.into())),
        HeldBy::Reader => "is read by a blocking call, which has to end first".into(),
        HeldBy::Sender(sender) => format!("{} may be in the middle of a send", path(sender)),
    };
    format!("{label} {local} <- {remote}: {why}")
}

/// Where more can be learned of it.
fn path(sender: &Sender) -> String {
    format!("/proc/{}/task/{}", sender.pid, sender.tid)
}

/// The same for programs.
pub(super) fn json(instance: &Instance, held: &[Held]) -> serde_json::Value {
    let workloads = Workloads::find(&control::names(instance));
    held.iter().map(|held| one_json(held, &workloads)).collect()
}

fn one_json(held: &Held, workloads: &Workloads) -> serde_json::Value {
    let (local, remote) = held.end.endpoints.addrs();
    let sender = match &held.by {
        HeldBy::Unread | HeldBy::Reader => None,
        HeldBy::Sender(sender) => Some(path(sender)),
    };
    json!({
        "local": local,
        "remote": remote,
        "workload": workloads.of(held.end.inode, held.end.cgroup_id),
        "unread_bytes": held.end.unread,
        "sender": sender,
    })
}
