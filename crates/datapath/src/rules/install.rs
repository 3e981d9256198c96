//! Tables into the kernel: another generation is in force as a whole, or the one before still is.
//!
//! There are two halves, of which `settings.generation` names one. Tables are made anew in the other;
//! the kernel returns from a change of a map of maps when every program that was running has ended
//! (maybe_wait_bpf_programs, kernel/bpf/syscall.c, 6.18), so nobody sees half of them.

use std::os::fd::{AsFd, AsRawFd};

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, libbpf_sys};

use super::Tables;
use crate::abi::{NO_RULE, RULE_PLACES, RuleAnswer, RuleRange, RuleSet, Settings, Wire};
use crate::maps::Maps;
use crate::{Error, Result};

/// Room for so many workloads and programs at least.
const MIN_ANSWERS: usize = 4096;

/// `linux/bpf.h`.
const BPF_F_NO_PREALLOC: u32 = 1;

/// Tables that are in the kernel, but not in force.
#[must_use]
pub struct Prepared {
    generation: u32,
    judging: bool,
    exact: MapHandle,
    ranges: MapHandle,
}

/// The tables in force, which answers may still be added to.
pub struct InForce(MapHandle);

/// Writes tables beside those in force. One at a time: the last one prepared is what may be put in
/// force.
///
/// # Errors
/// When the kernel refuses a map; nothing has changed then.
pub fn prepare(maps: &Maps, tables: &Tables) -> Result<Prepared> {
    let generation = maps.settings()?.generation.wrapping_add(1);
    let answers = tables.exact.len().saturating_mul(4).max(MIN_ANSWERS);
    let exact = table::<RuleAnswer>(MapType::Hash, "rule_answers", answers)?;
    for (answer, set) in &tables.exact {
        put(&exact, answer, set)?;
    }
    let ranges = table::<RuleRange>(MapType::LpmTrie, "rule_prefixes", tables.ranges.len())?;
    for (range, set) in &tables.ranges {
        put(&ranges, range, set)?;
    }
    let prepared = Prepared {
        generation,
        judging: !tables.say_nothing(),
        exact,
        ranges,
    };
    maps.get("rules")
        .update(
            &slot(generation).to_ne_bytes(),
            tables.rules.bytes(),
            MapFlags::ANY,
        )
        .map_err(Error::bpf("change", "the rules"))?;
    let options = tables.options.iter().enumerate();
    for (place, options) in options.chain([(NO_RULE, &tables.otherwise)]) {
        let at = slot(generation) as usize * RULE_PLACES + place;
        let at = u32::try_from(at).expect("the map is not larger");
        maps.get("rule_options")
            .update(&at.to_ne_bytes(), options.bytes(), MapFlags::ANY)
            .map_err(Error::bpf("change", "the options of rules"))?;
    }
    prepared.link(maps)?;
    Ok(prepared)
}

impl Prepared {
    /// Puts them in force, together with whatever else `change` says: new connections are judged by
    /// these from then on, and none by those before when this returns.
    ///
    /// # Errors
    /// When the kernel refuses a step. If it is the first one, nothing has changed.
    pub fn put_in_force(self, maps: &Maps, change: impl FnOnce(&mut Settings)) -> Result<InForce> {
        maps.change(|settings| {
            change(settings);
            // Where nothing was judged and nothing will be, what waits to be adopted goes on waiting.
            if self.judging || settings.judging != 0 {
                settings.generation = self.generation;
                settings.judging = self.judging.into();
            }
        })?;
        // Nothing but a way to wait for programs that have seen the one before.
        self.link(maps)?;
        for name in ["rule_exact", "rule_ranges"] {
            match maps
                .get(name)
                .delete(&slot(self.generation.wrapping_sub(1)).to_ne_bytes())
            {
                Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                    return Err(Error::bpf("free the rules before in", name)(error));
                }
                _ => {}
            }
        }
        Ok(InForce(self.exact))
    }

    fn link(&self, maps: &Maps) -> Result<()> {
        for (name, table) in [("rule_exact", &self.exact), ("rule_ranges", &self.ranges)] {
            let fd = table.as_fd().as_raw_fd();
            maps.get(name)
                .update(
                    &slot(self.generation).to_ne_bytes(),
                    &fd.to_ne_bytes(),
                    MapFlags::ANY,
                )
                .map_err(Error::bpf("change", name))?;
        }
        Ok(())
    }
}

impl InForce {
    /// As [`Tables::answer`].
    ///
    /// # Errors
    /// When there is no room any more; then it stays unknown.
    pub fn answer(&self, answer: &RuleAnswer, accepting: &RuleSet) -> Result<()> {
        put(&self.0, answer, accepting)
    }

    /// As [`Tables::forget`].
    ///
    /// # Errors
    /// When the kernel refuses the removal.
    pub fn forget(&self, answer: &RuleAnswer) -> Result<()> {
        match self.0.delete(answer.bytes()) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                Err(Error::bpf("remove an answer of", "the rules")(error))
            }
            _ => Ok(()),
        }
    }
}

fn slot(generation: u32) -> u32 {
    generation & 1
}

/// As lib/maps.h declares it.
fn table<K: Wire>(kind: MapType, name: &str, entries: usize) -> Result<MapHandle> {
    let opts = libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_sys::bpf_map_create_opts>() as u64,
        map_flags: BPF_F_NO_PREALLOC,
        ..Default::default()
    };
    let entries = u32::try_from(entries.max(1)).unwrap_or(u32::MAX);
    let (key, value) = (size_of::<K>() as u32, size_of::<RuleSet>() as u32);
    MapHandle::create(kind, Some(name), key, value, entries, &opts)
        .map_err(Error::bpf("make the map", name))
}

fn put<K: Wire, V: Wire>(map: &MapHandle, key: &K, value: &V) -> Result<()> {
    map.update(key.bytes(), value.bytes(), MapFlags::ANY)
        .map_err(Error::bpf("change", "the rules"))
}
