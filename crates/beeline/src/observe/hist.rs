//! Histograms as users get to see them.

use std::collections::BTreeMap;

use datapath::abi::{Hist, Pair};
use datapath::ends::Tallied;
use datapath::hist::{Histogram, Histograms, SLOTS, Snapshot, Sums};
use datapath::{Maps, Result};
use serde::Serialize;

use crate::workload::{Names, Workloads};

/// What the connections are called for whose pair of workloads there was no room.
pub const OTHER: &str = "other";

/// What values are in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A millionth of a second.
    Microseconds,
    /// A thousandth of a second.
    Milliseconds,
}

impl Unit {
    /// That of a kind of histograms.
    #[must_use]
    pub fn of(kind: Hist) -> Self {
        match kind {
            Hist::Redirected | Hist::KernelPath | Hist::Queue => Self::Bytes,
            Hist::Read | Hist::Rtt | Hist::Handshake => Self::Microseconds,
            Hist::Lifetime => Self::Milliseconds,
        }
    }

    /// A value in bytes or seconds.
    #[must_use]
    pub fn base(self, value: u64) -> f64 {
        match self {
            Self::Bytes => value as f64,
            Self::Microseconds => value as f64 / 1e6,
            Self::Milliseconds => value as f64 / 1e3,
        }
    }
}

/// One histogram.
#[derive(Debug, Clone, Serialize)]
pub struct View {
    /// What is counted.
    pub about: &'static str,
    /// Of its bounds and its sum.
    pub unit: Unit,
    /// How many values were counted.
    pub count: u64,
    /// Of all of them.
    pub sum: u64,
    /// From the smallest to the largest that were counted, without gaps.
    pub buckets: Vec<Bucket>,
}

/// Values up to a bound, and above that of the bucket before: the first begins above half of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The highest value in it; absent for the last one, which has no bound.
    pub up_to: Option<u64>,
    /// How many.
    pub count: u64,
}

impl View {
    /// Of a kind.
    #[must_use]
    pub fn of(kind: Hist, histogram: &Histogram) -> Self {
        let counted = |slot: &usize| histogram.slots[*slot] > 0;
        let first = (0..SLOTS).find(counted).unwrap_or(SLOTS);
        let end = (0..SLOTS).rfind(counted).map_or(first, |last| last + 1);
        let bucket = |slot| Bucket {
            up_to: Histogram::bound(slot),
            count: histogram.slots[slot],
        };
        Self {
            about: kind.about(),
            unit: Unit::of(kind),
            count: histogram.count(),
            sum: histogram.sum,
            buckets: (first..end).map(bucket).collect(),
        }
    }
}

/// Those of a kind in which something was counted, by its name.
#[must_use]
pub fn views(histograms: &Histograms) -> BTreeMap<&'static str, View> {
    let views = Hist::ALL
        .iter()
        .map(|kind| (kind.name(), View::of(*kind, &histograms[*kind])));
    views.filter(|(_, view)| view.count > 0).collect()
}

/// The connections between two workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Between {
    /// Name of the workload that connects.
    pub client: String,
    /// Name of the workload that accepts.
    pub server: String,
    /// What they did.
    pub sums: Sums,
}

/// The connections between two workloads, for people and machines.
#[derive(Debug, Clone, Serialize)]
pub struct PairView {
    /// Name of the workload that connects.
    pub client: String,
    /// Name of the workload that accepts.
    pub server: String,
    /// How many there are now.
    pub connections: u64,
    /// Theirs, and those of closed ones.
    pub histograms: BTreeMap<&'static str, View>,
}

/// Those of which something was counted.
#[must_use]
pub fn pairs(snapshot: &Snapshot, names: &Names) -> Vec<PairView> {
    let views = between(snapshot, names).into_iter().map(|pair| PairView {
        client: pair.client,
        server: pair.server,
        connections: pair.sums.connections,
        histograms: views(&pair.sums.histograms),
    });
    views.filter(|pair| !pair.histograms.is_empty()).collect()
}

/// Looks at all sockets, and at what closed ones left.
///
/// # Errors
/// When the kernel refuses the iterator or a look-up.
pub fn look(maps: &Maps) -> Result<Snapshot> {
    Snapshot::look(maps, &Tallied::load(maps)?)
}

/// The pairs by name, and what is of none as the last.
#[must_use]
pub fn between(snapshot: &Snapshot, names: &Names) -> Vec<Between> {
    let cgroups = Workloads::cgroups();
    let name = |id: u64| {
        let path = cgroups.get(&id);
        path.map_or_else(
            || format!("cgroup {id}"),
            |path| Workloads::name_of(path, names),
        )
    };
    let mut named = BTreeMap::<(String, String), Sums>::new();
    for (Pair { client, server }, sums) in &snapshot.pairs {
        // Containers of one name are one workload.
        *named.entry((name(*client), name(*server))).or_default() += sums;
    }
    let named = named.into_iter().map(|((client, server), sums)| Between {
        client,
        server,
        sums,
    });
    let other = Between {
        client: OTHER.into(),
        server: OTHER.into(),
        sums: snapshot.other.clone(),
    };
    named.chain([other]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_begins_and_ends_with_something_counted() {
        let mut histogram = Histogram::default();
        for value in [3, 3, 16] {
            histogram.sum += value;
            histogram.slots[Histogram::slot(value)] += 1;
        }
        let view = View::of(Hist::Queue, &histogram);
        let bucket = |up_to, count| Bucket {
            up_to: Some(up_to),
            count,
        };
        assert_eq!((view.count, view.sum), (3, 22));
        assert_eq!(view.buckets, [bucket(4, 2), bucket(8, 0), bucket(16, 1)]);
        assert!(
            View::of(Hist::Queue, &Histogram::default())
                .buckets
                .is_empty()
        );
    }
}
