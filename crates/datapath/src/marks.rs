//! Telling chosen sockets to redirect no more.

use std::collections::HashSet;

use libbpf_rs::Object;

use crate::abi::{Handshake, Reason};
use crate::maps::Maps;
use crate::{Error, Result, chosen, object};

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
        let mut open = object::open_sharing(object::RETIRE, "retire", maps, &["ends"])?;
        chosen::size(&mut open, chosen.len())?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterator that retires sockets"))?;
        chosen::add(&object, chosen.iter().copied(), reason as u32)?;
        Ok(Self { object })
    }

    /// Tells every chosen end that exists now. Returns how many had not been told before; messages
    /// of these whose verdict is older may still be on their way.
    ///
    /// # Errors
    /// When the kernel refuses to run the iterator.
    pub(crate) fn set(&self, maps: &Maps) -> Result<usize> {
        let told = object::iterate(&self.object, "beeline_retire", maps)?;
        Ok(told.len() / size_of::<Handshake>())
    }
}
