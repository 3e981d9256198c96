//! Enrolling connections that are live: those whose ends were local and fit, but blocked when they
//! were made, once neither does any more.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::fd::AsFd;
use std::thread;

use libbpf_rs::{Iter, Link, MapHandle, Object};

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
        let open = object::open_iterator(object::ADOPT, "adopt", maps, &SHARED)?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterators that adopt connections"))?;
        Ok(Self {
            ready: attach(&object, "beeline_ready", Some(maps.get("waiting")))?,
            adopt: attach(&object, "beeline_adopt", None)?,
        })
    }

    /// Enrols what is ready. Cheap where nothing is: then no socket is looked at but those that wait.
    /// One whose reader has read a segment in part is left for a later call.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn look(&self) -> Result<()> {
        let namespaces = self.ready()?;
        if namespaces.is_empty() {
            return Ok(());
        }
        let mut found = HashMap::new();
        netns::find(&namespaces, &mut found)?;
        // The client's end has to be enrolled before the server's, wherever they are.
        for _ in 0..2 {
            for namespace in found.values() {
                // On a thread of its own, as it moves there.
                thread::scope(|scope| {
                    let sweep = scope.spawn(|| netns::sweep(&self.adopt, namespace));
                    sweep.join().expect("it does not panic")
                })?;
            }
        }
        Ok(())
    }

    /// The network namespaces of connections that are ready.
    fn ready(&self) -> Result<HashSet<u32>> {
        const WHAT: &str = "the iterator over connections that wait";
        let mut bytes = Vec::new();
        Iter::new(&self.ready)
            .map_err(Error::bpf("run", WHAT))?
            .read_to_end(&mut bytes)
            .map_err(Error::io("read", WHAT))?;
        let number = |bytes: &[u8]| u32::from_ne_bytes(bytes.try_into().expect("four of them"));
        Ok(bytes.chunks_exact(4).map(number).collect())
    }
}

fn attach(object: &Object, name: &str, map: Option<&MapHandle>) -> Result<Link> {
    let program = object
        .progs_mut()
        .find(|program| program.name() == name)
        .unwrap_or_else(|| panic!("bpf/adopt.bpf.c defines {name}"));
    let link = match map {
        Some(map) => program.attach_iter(map.as_fd()),
        None => program.attach(),
    };
    link.map_err(Error::bpf("attach the iterator", name))
}
