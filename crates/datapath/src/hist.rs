//! Histograms by powers of two: of single sockets, of pairs of workloads, of the host.
//!
//! Programs keep those of a socket with it, and add them to its pair when its connection is over
//! (`bpf/lib/hist.h`). So a pair has what its closed connections left and what its live ones have.

use std::collections::HashMap;
use std::ops::{AddAssign, Index};

use libbpf_rs::{MapCore, MapFlags};

use crate::abi::{EndReport, Hist, Hists, Pair, PairIndex, Tally, Wire};
use crate::ends::Tallied;
use crate::maps::Maps;
use crate::{Error, Result};

/// Slots of a histogram; `HIST_SLOTS` in `bpf/abi.h`.
pub const SLOTS: usize = Hists::SLOTS;

/// Which histograms are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept(u32);

impl Kept {
    /// As `settings.histograms` has it.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The same from the settings.
    #[must_use]
    pub fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether this one is.
    #[must_use]
    pub fn contains(self, kind: Hist) -> bool {
        self.0 & 1 << kind as u32 != 0
    }
}

impl Default for Kept {
    /// All.
    fn default() -> Self {
        Hist::ALL.iter().copied().collect()
    }
}

impl FromIterator<Hist> for Kept {
    fn from_iter<T: IntoIterator<Item = Hist>>(kinds: T) -> Self {
        Self(
            kinds
                .into_iter()
                .fold(0, |bits, kind| bits | 1 << kind as u32),
        )
    }
}

/// How often values were counted, by their size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Of all values, in the unit of its [`Hist`].
    pub sum: u64,
    /// How many; which values belong to a slot, [`Histogram::bound`] tells.
    pub slots: [u64; SLOTS],
}

impl Histogram {
    /// All values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.slots.iter().sum()
    }

    /// The highest value that is counted in a slot; `None` in the last one.
    #[must_use]
    pub fn bound(slot: usize) -> Option<u64> {
        match slot {
            0 => Some(0),
            _ if slot + 1 < SLOTS => Some(1 << (slot - 1)),
            _ => None,
        }
    }

    /// The slot that a value is counted in.
    #[must_use]
    pub fn slot(value: u64) -> usize {
        let fits = |slot: &usize| Self::bound(*slot).is_none_or(|bound| value <= bound);
        (0..SLOTS).find(fits).unwrap_or(SLOTS - 1)
    }
}

impl AddAssign<&Self> for Histogram {
    fn add_assign(&mut self, other: &Self) {
        self.sum += other.sum;
        for (sum, one) in self.slots.iter_mut().zip(other.slots) {
            *sum += one;
        }
    }
}

/// One histogram of every kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histograms(Vec<Histogram>);

impl Default for Histograms {
    fn default() -> Self {
        Self(vec![Histogram::default(); Hist::ALL.len()])
    }
}

impl Index<Hist> for Histograms {
    type Output = Histogram;

    fn index(&self, kind: Hist) -> &Histogram {
        &self.0[kind as usize]
    }
}

impl AddAssign<&Self> for Histograms {
    fn add_assign(&mut self, other: &Self) {
        for (sum, one) in self.0.iter_mut().zip(&other.0) {
            *sum += one;
        }
    }
}

impl From<&Hists> for Histograms {
    fn from(hists: &Hists) -> Self {
        let kinds = hists.sums.iter().zip(hists.slots);
        Self(
            kinds
                .map(|(sum, slots)| Histogram { sum: *sum, slots })
                .collect(),
        )
    }
}

impl AddAssign<&Tally> for Histograms {
    fn add_assign(&mut self, tally: &Tally) {
        let kinds = self.0.iter_mut().zip(&tally.sums).zip(&tally.slots);
        for ((to, sum), slots) in kinds {
            to.sum += sum;
            for (to, one) in to.slots.iter_mut().zip(slots) {
                *to += u64::from(*one);
            }
        }
    }
}

impl From<&Tally> for Histograms {
    /// Those that no socket has are empty.
    fn from(tally: &Tally) -> Self {
        let mut all = Self::default();
        all += tally;
        all
    }
}

/// What the connections between two workloads did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sums {
    /// Of all their connections so far.
    pub histograms: Histograms,
    /// Live ones.
    pub connections: u64,
}

impl AddAssign<&Self> for Sums {
    fn add_assign(&mut self, other: &Self) {
        self.histograms += &other.histograms;
        self.connections += other.connections;
    }
}

/// What live sockets have, by the elements of their pairs.
#[derive(Debug, Default)]
pub struct Live(HashMap<u32, Sums>);

impl Live {
    /// Adds a socket, unless it is closed: then its pair has it.
    pub fn add(&mut self, report: &EndReport) {
        let end = &report.record.end;
        if !end.is_closed() {
            let sums = self.0.entry(end.pair.into()).or_default();
            sums.histograms += &report.tally;
            // Of the two ends the server's is the first that knows its pair.
            sums.connections += u64::from(!end.is_client());
        }
    }
}

/// The sums of a whole host.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// By the cgroups of client and server.
    pub pairs: HashMap<Pair, Sums>,
    /// Of connections that found no room for their pair, or whose pair is not known yet.
    pub other: Sums,
}

impl Snapshot {
    /// What closed connections left. Add the live ones, listed afterwards: one that closes in between
    /// is missing for once, and not there twice.
    ///
    /// # Errors
    /// When the kernel refuses a look-up.
    pub fn of_closed(maps: &Maps) -> Result<Self> {
        let pairs = maps.pairs()?.into_iter();
        Ok(Self {
            pairs: pairs
                .map(|(pair, index)| Ok((pair, closed(maps, index)?)))
                .collect::<Result<_>>()?,
            other: closed(maps, PairIndex::Other as u32)?,
        })
    }

    /// Adds what live connections have.
    ///
    /// # Errors
    /// When the kernel refuses to list the pairs.
    pub fn add_live(&mut self, maps: &Maps, live: &Live) -> Result<()> {
        let pairs: HashMap<u32, Pair> = maps.pairs()?.into_iter().map(|(p, i)| (i, p)).collect();
        for (index, sums) in &live.0 {
            let known = pairs.get(index);
            *known.map_or(&mut self.other, |pair| self.pairs.entry(*pair).or_default()) += sums;
        }
        Ok(())
    }

    /// What closed connections left and live ones have.
    ///
    /// # Errors
    /// When the kernel refuses a look-up or the iterator.
    pub fn look(maps: &Maps, ends: &Tallied) -> Result<Self> {
        let (mut all, mut live) = (Self::of_closed(maps)?, Live::default());
        ends.each(maps, |one| live.add(one))?;
        all.add_live(maps, &live)?;
        Ok(all)
    }

    /// Of all connections of the host.
    #[must_use]
    pub fn host(&self) -> Sums {
        let mut host = self.other.clone();
        self.pairs.values().for_each(|pair| host += pair);
        host
    }
}

/// What the closed connections of an element left, on all processors.
fn closed(maps: &Maps, index: u32) -> Result<Sums> {
    let per_cpu = maps
        .get("hists")
        .lookup_percpu(&index.to_ne_bytes(), MapFlags::ANY)
        .map_err(Error::bpf("read", "the map hists"))?
        .unwrap_or_default();
    let mut sums = Sums::default();
    for one in per_cpu.iter().filter_map(|bytes| Hists::read(bytes)) {
        sums.histograms += &Histograms::from(&one);
    }
    Ok(sums)
}

impl Maps {
    /// The pairs of workloads that have histograms of their own, each with its element of `hists`.
    ///
    /// # Errors
    /// When the kernel refuses a look-up.
    pub fn pairs(&self) -> Result<HashMap<Pair, u32>> {
        let map = self.get("pairs");
        let mut found = HashMap::new();
        for key in map.keys() {
            let value = map
                .lookup(&key, MapFlags::ANY)
                .map_err(Error::bpf("read", "the map pairs"))?;
            let index = value.and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
            if let (Some(pair), Some(index)) = (Pair::read(&key), index) {
                found.insert(pair, index);
            }
        }
        Ok(found)
    }

    /// Makes every element of `hists` free that pairs can have; for new maps.
    pub(crate) fn free_all_pairs(&self) -> Result<()> {
        for index in PairIndex::First as u32..PairIndex::Count as u32 {
            self.get("free_pairs")
                .update(&[], &index.to_ne_bytes(), MapFlags::ANY)
                .map_err(Error::bpf("fill", "the map free_pairs"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_ends_at_its_bound() {
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 4096, 4097].map(Histogram::slot),
            [0, 1, 2, 3, 3, 4, 13, 14]
        );
        let last = Histogram::bound(SLOTS - 2).expect("it is not the last");
        assert_eq!(
            [last, last + 1, u64::MAX].map(Histogram::slot),
            [SLOTS - 2, SLOTS - 1, SLOTS - 1]
        );
    }
}
