//! The stream of trace events.

use std::time::Duration;

use libbpf_rs::RingBuffer;

use crate::abi::{Event, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// Reads events; while it lives, programs write them. One reader at a time.
pub struct Events<'a> {
    maps: &'a Maps,
    ring: RingBuffer<'a>,
}

impl<'a> Events<'a> {
    /// Starts events and hands each to `take`.
    ///
    /// # Errors
    /// When the ring buffer cannot be mapped.
    pub fn open(maps: &'a Maps, mut take: impl FnMut(&Event) + 'a) -> Result<Self> {
        let ring = object::ring(
            maps.get("events"),
            "the ring buffer of events",
            move |bytes| {
                if let Some(event) = Event::read(bytes) {
                    take(&event);
                }
            },
        )?;
        maps.change(|settings| settings.tracing = 1)?;
        Ok(Self { maps, ring })
    }

    /// Hands over what came, waiting at most `timeout` for the first.
    ///
    /// # Errors
    /// When polling fails for another reason than a signal.
    pub fn poll(&self, timeout: Duration) -> Result<()> {
        match self.ring.poll(timeout) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => Ok(()),
            other => other.map_err(Error::bpf("read", "the ring buffer of events")),
        }
    }
}

impl Drop for Events<'_> {
    fn drop(&mut self) {
        // Events that nobody reads are dropped by the kernel and counted; no harm beyond that.
        let _ = self.maps.change(|settings| settings.tracing = 0);
    }
}
