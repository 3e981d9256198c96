//! What enrolled sockets send, with its bytes.

use std::cell::RefCell;
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::rc::Rc;
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, RingBuffer, libbpf_sys};

use crate::abi::{Handshake, Piece, Totals, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// Room for what was sent and is not read yet; a power of two.
const RING_BYTES: u32 = 16 << 20;

/// Connections that are not wanted; the least recently used are asked for again.
const OTHERS: u32 = 65_536;

const ONLY_KEY: [u8; 4] = [0; 4];

/// A part of a message, and its bytes.
pub type Captured = (Piece, Vec<u8>);

/// What found no room, or could not be read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lost {
    /// Parts of messages.
    pub pieces: u64,
    /// Bytes in these.
    pub bytes: u64,
}

/// Where programs put what they capture, while `settings.capture` tells them to. One at a time.
pub struct Capture<'a> {
    maps: &'a Maps,
    ring: RingBuffer<'a>,
    others: MapHandle,
    read: Rc<RefCell<Vec<Captured>>>,
    before: Totals,
}

impl<'a> Capture<'a> {
    /// Makes the room.
    ///
    /// # Errors
    /// When the kernel refuses the maps.
    pub fn open(maps: &'a Maps) -> Result<Self> {
        let ring = create(MapType::RingBuf, "capture", 0, 0, RING_BYTES)?;
        let handshake = mem::size_of::<Handshake>() as u32;
        let others = create(MapType::LruHash, "capture_others", handshake, 1, OTHERS)?;
        let read = Rc::new(RefCell::new(Vec::new()));
        let reader = reader(&ring, &read)?;
        let before = maps.totals()?;
        put(maps, "uncaptured", &others)?;
        put(maps, "captures", &ring)?;
        Ok(Self {
            maps,
            ring: reader,
            others,
            read,
            before,
        })
    }

    /// What came, in the order of each end's stream, waiting at most `timeout` for the first.
    ///
    /// # Errors
    /// When polling fails for another reason than a signal.
    pub fn poll(&self, timeout: Duration) -> Result<Vec<Captured>> {
        match self.ring.poll(timeout) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            other => other.map_err(Error::bpf("read", "the captured data"))?,
        }
        Ok(self.read.take())
    }

    /// Captures no more of a connection, by the client's view.
    ///
    /// # Errors
    /// When the kernel refuses the update.
    pub fn ignore(&self, client: Handshake) -> Result<()> {
        self.others
            .update(client.bytes(), &[1], MapFlags::ANY)
            .map_err(Error::bpf("add to", "the connections not to capture"))
    }

    /// Ends it. What had come by then, and what was lost in all.
    ///
    /// # Errors
    /// When the kernel refuses a map.
    pub fn finish(self) -> Result<(Vec<Captured>, Lost)> {
        // Returns when no program has the ring any more (maybe_wait_bpf_programs,
        // kernel/bpf/syscall.c).
        clear(self.maps)?;
        let rest = self.poll(Duration::ZERO)?;
        let now = self.maps.totals()?;
        let lost = Lost {
            pieces: now.lost_pieces - self.before.lost_pieces,
            bytes: now.lost_bytes - self.before.lost_bytes,
        };
        Ok((rest, lost))
    }
}

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        // What stays behind is replaced by the next capture.
        let _ = clear(self.maps);
    }
}

/// Tells programs to capture so many bytes of each message; 0 for none.
///
/// # Errors
/// When the kernel refuses the update.
pub fn set(maps: &Maps, bytes: u32) -> Result<()> {
    maps.change(|settings| settings.capture = bytes)
}

/// Whether programs capture.
///
/// # Errors
/// When the kernel refuses a look-up.
pub fn is_on(maps: &Maps) -> Result<bool> {
    let ring = maps.get("captures").lookup(&ONLY_KEY, MapFlags::ANY);
    let ring = ring.map_err(Error::bpf("read", "the map captures"))?;
    Ok(ring.is_some() && maps.settings()?.capture != 0)
}

/// Takes away what a capture that was killed left.
///
/// # Errors
/// When the kernel refuses for another reason than that nothing is there.
pub fn clear(maps: &Maps) -> Result<()> {
    for name in ["captures", "uncaptured"] {
        match maps.get(name).delete(&ONLY_KEY) {
            Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                return Err(Error::bpf("clear the map", name)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn create(kind: MapType, name: &str, key: u32, value: u32, entries: u32) -> Result<MapHandle> {
    let options = libbpf_sys::bpf_map_create_opts {
        sz: mem::size_of::<libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    MapHandle::create(kind, Some(name), key, value, entries, &options)
        .map_err(Error::bpf("create the map", name))
}

fn put(maps: &Maps, name: &str, inner: &MapHandle) -> Result<()> {
    let fd = inner.as_fd().as_raw_fd();
    maps.get(name)
        .update(&ONLY_KEY, &fd.to_ne_bytes(), MapFlags::ANY)
        .map_err(Error::bpf("change the map", name))
}

fn reader<'a>(ring: &MapHandle, read: &Rc<RefCell<Vec<Captured>>>) -> Result<RingBuffer<'a>> {
    let read = Rc::clone(read);
    object::ring(ring, "the ring buffer of captured data", move |bytes| {
        read.borrow_mut().extend(captured(bytes));
    })
}

fn captured(bytes: &[u8]) -> Option<Captured> {
    let piece = Piece::read(bytes)?;
    let data = bytes.get(mem::size_of::<Piece>()..)?;
    Some((piece, data.get(..piece.length as usize)?.to_vec()))
}
