//! The enrolled sockets, read from the kernel.

use std::mem;

use libbpf_rs::Object;

use crate::abi::{EndRecord, EndReport, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// A loaded iterator over sockets; list as often as you like.
pub struct Ends {
    object: Object,
    program: &'static str,
}

impl Ends {
    /// Loads the iterator over the sockets of `maps` that are or were enrolled.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        Self::of(maps, "beeline_ends")
    }

    /// Loads the iterator over those that wait to be enrolled for the first time, as an end blocks.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn waiting(maps: &Maps) -> Result<Self> {
        Self::of(maps, "beeline_waiting")
    }

    fn of(maps: &Maps, program: &'static str) -> Result<Self> {
        let mut open = object::open_iterator(object::ENDS, "ends", maps, &["ends"])?;
        for mut one in open.progs_mut() {
            let chosen = one.name() == program;
            one.set_autoload(chosen);
        }
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterator over sockets"))?;
        Ok(Self { object, program })
    }

    /// Every such socket that still exists, in no order. Sockets that come or go
    /// meanwhile may be missing or be there twice.
    ///
    /// # Errors
    /// When the kernel refuses to run the iterator.
    pub fn list(&self, maps: &Maps) -> Result<Vec<EndRecord>> {
        self.read(maps)
    }

    /// As [`Ends::list`], each with its histograms.
    ///
    /// # Errors
    /// As [`Ends::list`].
    pub fn reports(&self, maps: &Maps) -> Result<Vec<EndReport>> {
        self.read(maps)
    }

    /// A record begins its report.
    fn read<T: Wire>(&self, maps: &Maps) -> Result<Vec<T>> {
        let bytes = object::iterate(&self.object, self.program, maps)?;
        Ok(bytes
            .chunks_exact(mem::size_of::<EndReport>())
            .filter_map(T::read)
            .collect())
    }
}
