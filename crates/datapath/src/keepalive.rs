//! Keeping connection tracking and NAT from forgetting connections whose data they do not see.

use std::collections::HashSet;

use libbpf_rs::Link;

use crate::abi::End;
use crate::ends::Ends;
use crate::maps::Maps;
use crate::{Error, Result, netns, object};

/// The loaded iterators.
pub struct Keepalive {
    ends: Ends,
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
            ends: Ends::load(maps)?,
            begin: object::attach_iterator(&object, "beeline_keepalive")?,
            over: object::attach_iterator(&object, "beeline_keepalive_over")?,
        })
    }

    /// Lets TCP send a keepalive within a second on each connection on which data was redirected since
    /// the last time. This takes options of its sockets, until [`Keepalive::end`]. Nothing while
    /// detaching.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn begin(&self, maps: &Maps) -> Result<()> {
        self.sweep(maps, &self.begin)
    }

    /// Gives the sockets back their programs' own options; what a program has set meanwhile stays.
    ///
    /// # Errors
    /// As [`Keepalive::begin`].
    pub fn end(&self, maps: &Maps) -> Result<()> {
        self.sweep(maps, &self.over)
    }

    /// Runs it where there is something to do.
    fn sweep(&self, maps: &Maps, iterator: &Link) -> Result<()> {
        let mut carriers = HashSet::new();
        self.ends.each(maps, |end| {
            if end.end.keepidle_s != 0 || has_redirected(&end.end) {
                carriers.insert(end.netns);
            }
        })?;
        netns::sweep(iterator, &carriers, 1)
    }
}

/// Something, since the last time.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the datapath compares as many bits"
)]
fn has_redirected(end: &End) -> bool {
    end.redirected_msgs as u32 != end.kept_msgs
}
