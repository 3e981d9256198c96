//! The enrolled sockets, read from the kernel.

use std::io::Read;
use std::mem;
use std::os::fd::AsFd;

use libbpf_rs::{Iter, Object};

use crate::abi::{EndRecord, Wire};
use crate::maps::{Maps, SHARED};
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
        let mut open = object::open(object::ENDS, "ends")?;
        for mut map in open.maps_mut() {
            let unused = SHARED.iter().any(|name| map.name() == *name) && map.name() != "ends";
            if unused {
                map.set_autocreate(false)
                    .map_err(Error::bpf("open", "the iterator"))?;
            }
        }
        object::share(&mut open, "ends", maps.get("ends"))?;
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
        let program = self
            .object
            .progs_mut()
            .next()
            .expect("bpf/ends.bpf.c defines one program");
        let link = program
            .attach_iter(maps.get("ends").as_fd())
            .map_err(Error::bpf("attach the iterator to", "the map ends"))?;
        let mut bytes = Vec::new();
        Iter::new(&link)
            .map_err(Error::bpf("run", "the iterator over sockets"))?
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", "the iterator over sockets"))?;
        Ok(bytes
            .chunks_exact(mem::size_of::<EndRecord>())
            .filter_map(EndRecord::read)
            .collect())
    }
}
