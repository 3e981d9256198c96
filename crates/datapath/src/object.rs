//! Opening a BPF object that is part of this binary.

use libbpf_rs::{MapHandle, ObjectBuilder, OpenObject};

use crate::{Error, Result};

/// An ELF file in the binary, aligned as libelf wants it.
#[repr(C, align(8))]
pub(crate) struct Elf<T: ?Sized>(pub T);

/// The object of the socket path.
pub(crate) static SOCKET: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/socket.bpf.o")));

/// The iterator over enrolled sockets.
pub(crate) static ENDS: &Elf<[u8]> = &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/ends.bpf.o")));

/// Tiny programs that only [`crate::probe`] loads.
pub(crate) static PROBE: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/probe.bpf.o")));

/// Parses an object; nothing is in the kernel yet.
pub(crate) fn open(elf: &'static Elf<[u8]>, name: &str) -> Result<OpenObject> {
    ObjectBuilder::default()
        .name(name)
        .and_then(|builder| builder.open_memory(&elf.0))
        .map_err(Error::bpf("open the BPF object", name))
}

/// Lets `object` use an existing map in the place of its own of that name.
pub(crate) fn share(object: &mut OpenObject, name: &str, map: &MapHandle) -> Result<()> {
    use std::os::fd::AsFd;

    let mut own = object
        .maps_mut()
        .find(|own| own.name() == name)
        .unwrap_or_else(|| panic!("bpf/lib/maps.h defines {name}"));
    own.reuse_fd(map.as_fd())
        .map_err(Error::bpf("share the map", name))
}
