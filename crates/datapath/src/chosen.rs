//! The map `chosen` of the programs that act on some sockets only.

use libbpf_rs::{MapCore, MapFlags, Object, OpenObject};

use crate::abi::{Handshake, Wire};
use crate::{Error, Result, object};

const MAP: &str = "chosen";

/// Makes room for so many sockets, before the object is loaded.
pub(crate) fn size(open: &mut OpenObject, sockets: usize) -> Result<()> {
    let mut map = open
        .maps_mut()
        .find(|map| map.name() == MAP)
        .expect("the iterator defines it");
    let entries = u32::try_from(sockets.max(1)).unwrap_or(u32::MAX);
    map.set_max_entries(entries)
        .map_err(Error::bpf("size the map", MAP))
}

/// Chooses ends by their own views of their handshakes.
pub(crate) fn add(
    object: &Object,
    sockets: impl IntoIterator<Item = Handshake>,
    value: u32,
) -> Result<()> {
    let map = object::map(object, MAP);
    for own in sockets {
        map.update(own.bytes(), &value.to_ne_bytes(), MapFlags::ANY)
            .map_err(Error::bpf("add to the map", MAP))?;
    }
    Ok(())
}
