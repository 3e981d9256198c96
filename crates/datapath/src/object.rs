//! Opening a BPF object that is part of this binary.

use std::io::Read;
use std::os::fd::AsFd;

use libbpf_rs::{
    Iter, Link, Map, MapCore, MapHandle, Object, ObjectBuilder, OpenObject, ProgramInput,
    ProgramMut, RingBuffer, RingBufferBuilder,
};

use crate::maps::{Maps, SHARED};
use crate::{Error, Result, symbols};

/// An ELF file in the binary, aligned as libelf wants it.
#[repr(C, align(8))]
pub(crate) struct Elf<T: ?Sized>(pub T);

/// The object of the socket path.
pub(crate) static SOCKET: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/socket.bpf.o")));

/// The program that reports sockets.
pub(crate) static ENDS: &Elf<[u8]> = &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/ends.bpf.o")));

/// The iterator over files.
pub(crate) static HOLDERS: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/holders.bpf.o")));

/// The program that tells sockets to redirect no more.
pub(crate) static RETIRE: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/retire.bpf.o")));

/// The iterator that takes sockets out of the maps.
pub(crate) static RELEASE: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/release.bpf.o")));

/// The iterators that enrol connections which are live.
pub(crate) static ADOPT: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/adopt.bpf.o")));

/// The iterators that find connections from before the attachment.
pub(crate) static EARLIER: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/earlier.bpf.o")));

/// The iterators that keep connection tracking from forgetting connections.
pub(crate) static KEEPALIVE: &Elf<[u8]> = &Elf(*include_bytes!(concat!(
    env!("OUT_DIR"),
    "/keepalive.bpf.o"
)));

/// What hears of options that are set on enrolled sockets.
pub(crate) static SETSOCKOPT: &Elf<[u8]> = &Elf(*include_bytes!(concat!(
    env!("OUT_DIR"),
    "/setsockopt.bpf.o"
)));

/// What tells of sockets that are spliced from.
pub(crate) static SPLICE: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/splice.bpf.o")));

/// The iterator over threads that are awake.
pub(crate) static THREADS: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/threads.bpf.o")));

/// The program that forgets sockets which are gone.
pub(crate) static TIDY: &Elf<[u8]> = &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/tidy.bpf.o")));

/// Iterators over processes and their listeners.
pub(crate) static PROGRAMS: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/programs.bpf.o")));

/// Tiny programs that only [`crate::probe`] loads.
pub(crate) static PROBE: &Elf<[u8]> =
    &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/probe.bpf.o")));

/// Parses an object; nothing is in the kernel yet.
pub(crate) fn open(elf: &'static Elf<[u8]>, name: &str) -> Result<OpenObject> {
    let mut object = ObjectBuilder::default()
        .name(name)
        .and_then(|builder| builder.open_memory(&elf.0))
        .map_err(Error::bpf("open the BPF object", name))?;
    symbols::fill(&mut object)?;
    Ok(object)
}

/// Lets `object` use an existing map in the place of its own of that name.
pub(crate) fn share(object: &mut OpenObject, name: &str, map: &MapHandle) -> Result<()> {
    let mut own = object
        .maps_mut()
        .find(|own| own.name() == name)
        .unwrap_or_else(|| panic!("bpf/lib/maps.h defines {name}"));
    own.reuse_fd(map.as_fd())
        .map_err(Error::bpf("share the map", name))
}

/// Opens an object whose programs look into the maps `used`; of the other maps that are shared, it makes
/// none.
pub(crate) fn open_sharing(
    elf: &'static Elf<[u8]>,
    name: &str,
    maps: &Maps,
    used: &[&str],
) -> Result<OpenObject> {
    let mut open = self::open(elf, name)?;
    for mut map in open.maps_mut() {
        let is = |other: &&str| *map.name() == **other;
        if SHARED.iter().any(is) && !used.iter().any(is) {
            map.set_autocreate(false)
                .map_err(Error::bpf("open the BPF object", name))?;
        }
    }
    for name in used {
        share(&mut open, name, maps.get(name))?;
    }
    Ok(open)
}

/// Attaches an iterator of an object.
pub(crate) fn attach_iterator(object: &Object, name: &str) -> Result<Link> {
    program(object, name)
        .attach()
        .map_err(Error::bpf("attach the iterator", name))
}

/// Runs an attached iterator, `what` in words, and returns what it wrote.
pub(crate) fn read(iterator: &Link, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    Iter::new(iterator)
        .map_err(Error::bpf("run", what))?
        .read_to_end(&mut bytes)
        .map_err(Error::io("read", what))?;
    Ok(bytes)
}

/// What a program of the kind tc takes for a packet has this many bytes at least, and at most about a page
/// (bpf_prog_test_run_skb, net/bpf/test_run.c, 6.18).
pub(crate) const PACKET_BYTES: std::ops::RangeInclusive<usize> = 64..=3072;

/// Runs a program of the kind tc once, `what` in words, with these bytes in the place of a packet, and returns
/// what it returns.
pub(crate) fn run(object: &Object, name: &str, what: &str, bytes: &[u8]) -> Result<u32> {
    let input = ProgramInput {
        data_in: Some(bytes),
        ..ProgramInput::default()
    };
    let output = program(object, name)
        .test_run(input)
        .map_err(Error::bpf("run", what))?;
    Ok(output.return_value)
}

/// As [`run`], of a program that does not look at the packet.
pub(crate) fn call(object: &Object, name: &str, what: &str) -> Result<u32> {
    run(object, name, what, &[0; *PACKET_BYTES.start()])
}

/// Opens a ring buffer, `what` in words, whose elements are handed to `take`.
pub(crate) fn ring<'a>(
    map: &dyn MapCore,
    what: &str,
    mut take: impl FnMut(&[u8]) + 'a,
) -> Result<RingBuffer<'a>> {
    let mut builder = RingBufferBuilder::new();
    builder
        .add(map, move |bytes| {
            take(bytes);
            0
        })
        .map_err(Error::bpf("open", what))?;
    builder.build().map_err(Error::bpf("map", what))
}

/// A program that the object defines.
pub(crate) fn program<'a>(object: &'a Object, name: &str) -> ProgramMut<'a> {
    let mut all = object.progs_mut();
    all.find(|program| program.name() == name)
        .unwrap_or_else(|| panic!("the object defines {name}"))
}

/// A map that the object defines.
pub(crate) fn map<'a>(object: &'a Object, name: &str) -> Map<'a> {
    let mut all = object.maps();
    all.find(|map| map.name() == name)
        .unwrap_or_else(|| panic!("the object defines {name}"))
}
