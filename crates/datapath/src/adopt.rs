//! Enrolling connections that are live: those whose ends were local and fit, but blocked when they
//! were made, once neither does any more.

use libbpf_rs::Link;

use crate::maps::{Maps, SHARED};
use crate::{Error, Result, netns, object};

/// The loaded iterators.
pub struct Adopter {
    /// Over the map `waiting`.
    ready: Link,
    /// Over TCP sockets.
    adopt: Link,
}

impl Adopter {
    /// Loads the iterators over the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(maps: &Maps) -> Result<Self> {
        let open = object::open_sharing(object::ADOPT, "adopt", maps, &SHARED)?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterators that adopt connections"))?;
        Ok(Self {
            ready: object::attach_iterator(&object, "beeline_ready", Some(maps.get("waiting")))?,
            adopt: object::attach_iterator(&object, "beeline_adopt", None)?,
        })
    }

    /// Enrols what is ready. Cheap where nothing is: then no socket is looked at but those that wait.
    /// One whose reader has read a segment in part is left for a later call.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn look(&self) -> Result<()> {
        let ready = netns::reported(&self.ready, "the iterator over connections that wait")?;
        // The client's end has to be enrolled before the server's, wherever they are.
        netns::sweep(&self.adopt, &ready, 2)
    }
}
