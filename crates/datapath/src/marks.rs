//! Telling chosen sockets to redirect no more.

use std::collections::HashSet;

use libbpf_rs::{MapCore, MapFlags, Object};

use crate::abi::{Handshake, Reason, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// Ends that are told, wherever they are: a peer that enrols later is told by the next call.
pub(crate) struct Marks {
    object: Object,
}

impl Marks {
    /// Chooses ends by their own views of their handshakes; tells nobody yet.
    ///
    /// # Errors
    /// When the kernel refuses the iterator or its map.
    pub(crate) fn load(maps: &Maps, chosen: &HashSet<Handshake>, reason: Reason) -> Result<Self> {
        const MAP: &str = "chosen";
        let mut open = object::open_iterator(object::RETIRE, "retire", maps)?;
        let entries = u32::try_from(chosen.len().max(1)).unwrap_or(u32::MAX);
        let mut map = open
            .maps_mut()
            .find(|map| map.name() == MAP)
            .expect("bpf/retire.bpf.c defines it");
        map.set_max_entries(entries)
            .map_err(Error::bpf("size the map", MAP))?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterator that retires sockets"))?;
        let map = object.maps().find(|map| map.name() == MAP);
        let map = map.expect("it was there before loading");
        for own in chosen {
            map.update(own.bytes(), &(reason as u32).to_ne_bytes(), MapFlags::ANY)
                .map_err(Error::bpf("add to the map", MAP))?;
        }
        Ok(Self { object })
    }

    /// Tells every chosen end that exists now. Returns how many had not been told before; messages
    /// of these whose verdict is older may still be on their way.
    ///
    /// # Errors
    /// When the kernel refuses to run the iterator.
    pub(crate) fn set(&self, maps: &Maps) -> Result<usize> {
        let told = object::iterate(&self.object, maps)?;
        Ok(told.len() / size_of::<Handshake>())
    }
}
