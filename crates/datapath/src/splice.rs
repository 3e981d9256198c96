//! Connections from which a program splices although its files do not show that it can. Where the
//! kernel lets a program look at `tcp_splice_read`, they are taken back to plain TCP.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use libbpf_rs::{Link, RingBuffer};

use crate::abi::{Handshake, Reason, Wire};
use crate::maps::Maps;
use crate::probe::{Refusal, asked};
use crate::{Error, Result, drain, object};

/// How long such a connection's reader is waited for, which may read what was redirected before it splices
/// on. If it does not, it goes over the kernel path all the same.
const PATIENCE: Duration = Duration::from_millis(500);

/// Hears of them.
pub struct Splices<'a> {
    maps: &'a Maps,
    ring: RingBuffer<'a>,
    heard: Rc<RefCell<Vec<Handshake>>>,
    _link: Link,
}

impl<'a> Splices<'a> {
    /// Looks at the kernel's function as long as the value lives; the refusal where the kernel forbids it.
    /// Programs that splice are remembered as such at once.
    ///
    /// # Errors
    /// When something else failed than the kernel's consent.
    pub fn hear(maps: &'a Maps) -> Result<Result<Self, Refusal>> {
        asked(|| Self::attach(maps))
    }

    fn attach(maps: &'a Maps) -> Result<Self> {
        const WHAT: &str = "the look at tcp_splice_read";
        let open = object::open_sharing(object::SPLICE, "splice", maps, &["ends", "programs"])?;
        let object = open.load().map_err(Error::bpf("load", WHAT))?;
        let link = object::program(&object, "beeline_splice_read")
            .attach()
            .map_err(Error::bpf("attach", WHAT))?;
        let heard = Rc::<RefCell<Vec<Handshake>>>::default();
        let hears = heard.clone();
        let spliced = object::map(&object, "spliced");
        let ring = object::ring(&spliced, "the ring buffer of spliced sockets", move |own| {
            hears.borrow_mut().extend(Handshake::read(own));
        })?;
        Ok(Self {
            maps,
            ring,
            heard,
            _link: link,
        })
    }

    /// Waits at most `timeout` for such connections, and retires them. Returns how many there were.
    ///
    /// # Errors
    /// When polling fails for another reason than a signal, or the kernel refuses a step of the retirement.
    pub fn poll(&self, timeout: Duration) -> Result<usize> {
        match self.ring.poll(timeout) {
            Err(error) if error.kind() == libbpf_rs::ErrorKind::Interrupted => {}
            other => other.map_err(Error::bpf("read", "the ring buffer of spliced sockets"))?,
        }
        let heard = self.heard.take();
        if !heard.is_empty() {
            let until = Instant::now() + PATIENCE;
            drain::retire(self.maps, &heard, Reason::MaySplice, until, |_| {})?;
        }
        Ok(heard.len())
    }
}
