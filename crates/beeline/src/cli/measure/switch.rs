//! Turns with Beeline: on for one, off for the next, and how much of the traffic it redirected.

use std::collections::BTreeMap;
use std::env;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use datapath::Maps;
use datapath::abi::{Reason, Totals};
use datapath::programs::Programs;
use datapath::socket::{Options, SocketPath};
use testbed::Cgroup;

use super::cpu::Cpu;
use super::host;

/// How long the counters of closed connections may take to arrive.
const SETTLE: Duration = Duration::from_secs(2);

/// How soon the end of a turn is noticed.
const JUDGE: Duration = Duration::from_millis(20);

/// A datapath of our own that is attached for a turn and taken off again.
pub(in crate::cli) struct Switch {
    path: SocketPath,
    cgroup: PathBuf,
}

/// What the datapath did in some turns.
#[derive(Debug, Clone, Default)]
pub(in crate::cli) struct Share {
    /// Bytes of which is known that they were sent, over all hops.
    sent: u64,
    redirected: u64,
    /// Bytes that enrolled sockets sent over the kernel path.
    kernel: u64,
    pub(in crate::cli) reasons: BTreeMap<&'static str, u64>,
}

impl Switch {
    /// Loads the datapath for a cgroup; attached to nothing yet.
    ///
    /// # Errors
    /// When the kernel refuses it, or another datapath is attached above.
    pub(in crate::cli) fn new(cgroup: &Cgroup) -> Result<Self> {
        host::refuse_attached(cgroup.path())?;
        Ok(Self {
            path: SocketPath::load(Options::default())?,
            cgroup: cgroup.path().to_owned(),
        })
    }

    /// The processor time of the cgroup's processes.
    pub(in crate::cli) fn cpu(&self) -> Cpu {
        Cpu::of(&self.cgroup)
    }

    /// Runs a turn with Beeline attached, and adds what became of its bytes to `share`. `sent` says
    /// how many of them there were.
    pub(in crate::cli) fn on<T>(
        &mut self,
        share: &mut Share,
        turn: impl FnOnce() -> Result<T>,
        sent: impl FnOnce(&T) -> u64,
    ) -> Result<T> {
        let before = self.path.maps().totals()?;
        let (done, after) = self.attached(turn, &before)?;
        share.add(sent(&done), &before, &after);
        Ok(done)
    }

    /// The same without histograms.
    pub(in crate::cli) fn on_unobserved<T>(
        &mut self,
        turn: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let maps = self.path.maps();
        let (before, kept) = (maps.totals()?, maps.settings()?.histograms);
        maps.change(|settings| settings.histograms = 0)?;
        let ended = self.attached(turn, &before);
        self.path
            .maps()
            .change(|settings| settings.histograms = kept)?;
        ended.map(|(done, _)| done)
    }

    /// Runs a turn while attached. Also returns the totals after it.
    fn attached<T>(
        &mut self,
        turn: impl FnOnce() -> Result<T>,
        before: &Totals,
    ) -> Result<(T, Totals)> {
        self.path.attach(&self.cgroup)?;
        let over = AtomicBool::new(false);
        let maps = self.path.maps();
        let done = thread::scope(|scope| {
            scope.spawn(|| judge_programs(maps, &over));
            let done = turn();
            over.store(true, Ordering::Relaxed);
            done
        });
        let after = self.settled(before);
        self.path.detach();
        Ok((done?, after?))
    }

    /// The totals once every socket that was enrolled is closed, which is when its bytes are added
    /// to them. Sockets that do not close in time are missing then, and the share shows it.
    fn settled(&self, before: &Totals) -> Result<Totals> {
        let mut now = self.path.maps().totals()?;
        let _ = testbed::wait_for("the end of the connections", SETTLE, || {
            if let Ok(totals) = self.path.maps().totals() {
                now = totals;
            }
            now.closed - before.closed >= now.enrolled - before.enrolled
        });
        Ok(now)
    }
}

/// Looks at programs that connect or listen, as the agent does. Of one that cannot be looked at the
/// reasons tell. We know of ourselves that we do not splice; a hard link to our file makes it another.
fn judge_programs(maps: &Maps, over: &AtomicBool) {
    let own = env::current_exe().ok();
    let Ok(mut programs) = Programs::load(maps, |path| Some(path) == own.as_deref()) else {
        return;
    };
    while !over.load(Ordering::Relaxed) && programs.poll(JUDGE).is_ok() {}
}

impl Share {
    fn add(&mut self, sent: u64, before: &Totals, after: &Totals) {
        self.sent += sent;
        self.redirected += after.closed_redirected_bytes - before.closed_redirected_bytes;
        self.kernel += after.closed_kernel_bytes - before.closed_kernel_bytes;
        for reason in Reason::ALL {
            let count = after.count(*reason) - before.count(*reason);
            if count > 0 {
                *self.reasons.entry(reason.name()).or_default() += count;
            }
        }
    }

    /// Redirected bytes to bytes sent over all hops, from 0 to 1.
    pub(in crate::cli) fn fraction(&self) -> f64 {
        if self.sent == 0 {
            0.0
        } else {
            self.redirected as f64 / self.sent as f64
        }
    }

    /// Bytes that were not redirected, over all hops.
    pub(in crate::cli) fn rest(&self) -> u64 {
        self.sent.saturating_sub(self.redirected)
    }

    /// Redirected bytes to all bytes that enrolled sockets sent, for traffic whose size is not
    /// known; nothing when they sent none.
    pub(in crate::cli) fn of_enrolled(&self) -> Option<f64> {
        let all = self.redirected + self.kernel;
        (all > 0).then(|| self.redirected as f64 / all as f64)
    }
}
