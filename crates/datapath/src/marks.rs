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
    /// When the kernel refuses the program or its map.
    pub(crate) fn load(maps: &Maps, chosen: &HashSet<Handshake>, reason: Reason) -> Result<Self> {
        let mut open = object::open_sharing(object::RETIRE, "retire", maps, &["ends", "socks"])?;
        chosen::size(&mut open, chosen.len())?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the program that retires sockets"))?;
        chosen::add(&object, chosen.iter().copied(), reason as u32)?;
        Ok(Self { object })
    }

    /// Tells every chosen end that is in the maps now. Returns how many had not been told before;
    /// messages of these whose verdict is older may still be on their way.
    ///
    /// # Errors
    /// When the kernel refuses to run the program.
    pub(crate) fn set(&self) -> Result<usize> {
        let what = "the program that retires sockets";
        let told = object::call(&self.object, "beeline_retire", what)?;
        Ok(told as usize)
    }
}
