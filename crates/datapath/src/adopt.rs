//! Enrolling connections that are live: those whose ends were local and fit, but blocked when they
//! were made, once neither does any more.

use std::collections::HashSet;

use libbpf_rs::{Link, MapCore, Object};

use crate::maps::{Maps, SHARED};
use crate::{Error, Result, netns, object};

/// The loaded programs.
pub struct Adopter {
    /// With the one that looks at the map `waiting`.
    object: Object,
    /// The iterator over TCP sockets.
    adopt: Link,
}

impl Adopter {
    /// Loads the programs for the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(maps: &Maps) -> Result<Self> {
        let open = object::open_sharing(object::ADOPT, "adopt", maps, &SHARED)?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the programs that adopt connections"))?;
        Ok(Self {
            adopt: object::attach_iterator(&object, "beeline_adopt")?,
            object,
        })
    }

    /// Enrols what is ready. Cheap where nothing is: then no socket is looked at but those that wait.
    /// One whose reader has read a segment in part is left for a later call.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn look(&self) -> Result<()> {
        // The client's end has to be enrolled before the server's, wherever they are.
        netns::sweep(&self.adopt, &self.ready()?, 2)
    }

    /// The network namespaces in which something is ready, by their inode numbers.
    fn ready(&self) -> Result<HashSet<u32>> {
        let what = "the program that looks at connections that wait";
        object::call(&self.object, "beeline_ready", what)?;
        let map = object::map(&self.object, "namespaces");
        let mut found = HashSet::new();
        for key in map.keys().collect::<Vec<_>>() {
            map.delete(&key)
                .map_err(Error::bpf("remove from", "the map namespaces"))?;
            found.extend(key.try_into().map(u32::from_ne_bytes));
        }
        Ok(found)
    }
}
