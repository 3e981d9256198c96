//! Keeping connection tracking and NAT from forgetting connections whose data they do not see.

use libbpf_rs::Link;

use crate::maps::Maps;
use crate::{Error, Result, netns, object};

/// The loaded iterators.
pub struct Keepalive {
    /// Over the map `ends`.
    carriers: Link,
    /// Over TCP sockets.
    begin: Link,
    over: Link,
}

impl Keepalive {
    /// Loads the iterators over the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(maps: &Maps) -> Result<Self> {
        const USED: &[&str] = &["ends", "settings"];
        let open = object::open_sharing(object::KEEPALIVE, "keepalive", maps, USED)?;
        let object = open.load().map_err(Error::bpf(
            "load",
            "the iterators that keep connections alive",
        ))?;
        Ok(Self {
            carriers: object::attach_iterator(&object, "beeline_carriers", Some(maps.get("ends")))?,
            begin: object::attach_iterator(&object, "beeline_keepalive", None)?,
            over: object::attach_iterator(&object, "beeline_keepalive_over", None)?,
        })
    }

    /// Lets TCP send a keepalive within a second on each connection on which data was redirected since
    /// the last time. This takes options of its sockets, until [`Keepalive::end`]. Nothing while
    /// detaching.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn begin(&self) -> Result<()> {
        self.sweep(&self.begin)
    }

    /// Gives the sockets back their programs' own options; what a program has set meanwhile stays.
    ///
    /// # Errors
    /// As [`Keepalive::begin`].
    pub fn end(&self) -> Result<()> {
        self.sweep(&self.over)
    }

    fn sweep(&self, iterator: &Link) -> Result<()> {
        let carriers = netns::reported(&self.carriers, "the iterator over redirected connections")?;
        netns::sweep(iterator, &carriers, 1)
    }
}
