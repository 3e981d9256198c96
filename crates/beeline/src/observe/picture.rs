//! All connections at one moment, and what was sent until then.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use datapath::abi::EndRecord;
use datapath::ends::{Ends, Tallied};
use datapath::{Maps, Result};

use super::conns::{self, Connection, End, Tallies};
use crate::control;
use crate::instance::Instance;
use crate::workload::Workloads;

/// How long a picture of the host's processes is good for sockets that are known already: another
/// process may hold them then.
const FRESH: Duration = Duration::from_secs(10);

/// What was sent, as counted by the ends that sent it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes past the stack.
    pub redirected_bytes: u64,
    /// Messages past the stack.
    pub redirected_messages: u64,
    /// Bytes through the stack; its messages are not counted.
    pub kernel_bytes: u64,
}

impl Sent {
    /// By one end; nothing by one that is closed.
    #[must_use]
    pub fn by(end: Option<&End>) -> Self {
        end.map_or(Self::default(), |end| Self {
            redirected_bytes: end.redirected_bytes,
            redirected_messages: end.redirected_messages,
            kernel_bytes: end.kernel_bytes,
        })
    }
}

/// What a look at the kernel saw.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// Oldest first.
    pub conns: Vec<Connection>,
    /// By all connections, also those that are closed.
    pub sent: Sent,
}

/// What is read of each socket.
enum Lens {
    Facts(Ends),
    Histograms(Tallied),
}

impl Lens {
    /// Every socket, and their histograms.
    fn read(&self, maps: &Maps) -> Result<(Vec<EndRecord>, Tallies)> {
        match self {
            Self::Facts(ends) => Ok((ends.list(maps)?, Tallies::new())),
            Self::Histograms(ends) => {
                let (mut all, mut tallies) = (Vec::new(), Tallies::new());
                ends.each(maps, |one| {
                    all.push(one.record);
                    tallies.insert(one.record.cookie, one.tally.into());
                })?;
                Ok((all, tallies))
            }
        }
    }
}

/// Looks again and again, and keeps what it needs for it.
pub struct Camera {
    instance: Instance,
    lens: Lens,
    workloads: Workloads,
    /// When workloads were looked for, and for which sockets, by inode.
    looked: Option<(Instant, HashSet<u64>)>,
}

impl Camera {
    /// Nothing is looked at yet.
    ///
    /// # Errors
    /// When the kernel refuses the program that reports sockets.
    pub fn new(instance: &Instance, maps: &Maps) -> Result<Self> {
        Ok(Self::of(instance, Lens::Facts(Ends::load(maps)?)))
    }

    /// As [`Camera::new`], each end with its histograms.
    ///
    /// # Errors
    /// As [`Camera::new`].
    pub fn with_histograms(instance: &Instance, maps: &Maps) -> Result<Self> {
        Ok(Self::of(instance, Lens::Histograms(Tallied::load(maps)?)))
    }

    fn of(instance: &Instance, lens: Lens) -> Self {
        Self {
            instance: instance.clone(),
            lens,
            workloads: Workloads::default(),
            looked: None,
        }
    }

    /// Looks at the connections of the instance and maps it was made for.
    ///
    /// # Errors
    /// When the kernel refuses to run the iterator, or the totals.
    pub fn look(&mut self, maps: &Maps) -> Result<Picture> {
        // Totals first: an end that closes in between is missing for once, not counted twice.
        let totals = maps.totals()?;
        let (ends, mut tallies) = self.lens.read(maps)?;
        self.find_workloads(&ends);
        let live = || {
            ends.iter()
                .map(|one| &one.end)
                .filter(|end| !end.is_closed())
        };
        let mut conns = conns::of(&ends, &self.workloads);
        for conn in &mut conns {
            conn.take_tallies(&mut tallies);
        }
        Ok(Picture {
            conns,
            sent: Sent {
                redirected_bytes: totals.closed_redirected_bytes
                    + live().map(|end| end.redirected_bytes).sum::<u64>(),
                redirected_messages: totals.closed_redirected_msgs
                    + live().map(|end| end.redirected_msgs).sum::<u64>(),
                kernel_bytes: totals.closed_kernel_bytes
                    + live().map(|end| end.kernel_bytes).sum::<u64>(),
            },
        })
    }

    /// Every process is asked for its files, so only when there is something new to find.
    fn find_workloads(&mut self, ends: &[EndRecord]) {
        let inodes: HashSet<u64> = ends.iter().map(|one| one.inode).collect();
        let nothing_new =
            |(at, known): &(Instant, HashSet<u64>)| at.elapsed() < FRESH && inodes.is_subset(known);
        if !self.looked.as_ref().is_some_and(nothing_new) {
            self.workloads = Workloads::find(&control::names(&self.instance));
            self.looked = Some((Instant::now(), inodes));
        }
    }
}
