//! The enrolled sockets, read from the kernel.

use std::mem;

use libbpf_rs::Object;

use crate::abi::{EndRecord, EndReport, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// A loaded iterator over enrolled sockets; list as often as you like.
pub struct Ends {
    object: Object,
}

impl Ends {
    /// Loads the iterator over the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        let open = object::open_iterator(object::ENDS, "ends", maps, &["ends"])?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterator over sockets"))?;
        Ok(Self { object })
    }

    /// Every socket that is or was enrolled and still exists, in no order. Sockets that come or go
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
        let bytes = object::iterate(&self.object, maps)?;
        Ok(bytes
            .chunks_exact(mem::size_of::<EndReport>())
            .filter_map(T::read)
            .collect())
    }
}
