//! Taking the socket path off without losing a byte (invariant 1).
//!
//! Every step leaves a state that works, so that it may be interrupted anywhere and begun again:
//!
//! 1. Nothing new is enrolled, and new messages take the kernel path; behind redirected ones that is
//!    safe at any byte.
//! 2. Redirects that are under way end ([`crate::quiesce`]).
//! 3. A socket whose psock queue was read empty leaves the maps and is plain TCP again.
//! 4. When the map is empty the sock_ops attachment goes, then the pins, and with them the maps and
//!    programs. Until then the attachment keeps the books of connections that close meanwhile.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::Link;

use crate::abi::{EndRecord, Handshake, Mode};
use crate::ends::Ends;
use crate::maps::Maps;
use crate::pins::Pins;
use crate::quiesce::{Quiesce, Sender};
use crate::{Error, Result};

/// Time between two looks at sockets that still hold data.
const INTERVAL: Duration = Duration::from_millis(5);

/// How far a drain is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Sockets that were enrolled when it began.
    pub before: usize,
    /// Sockets still in the map.
    pub left: usize,
}

/// How a drain ended.
#[derive(Debug)]
pub enum Outcome {
    /// Programs, maps and pins are gone.
    Done {
        /// Sockets that were moved to plain TCP.
        released: usize,
    },
    /// The deadline passed; these go on working, over the kernel path, until a later drain.
    Held(Vec<Held>),
}

/// A socket that cannot leave the map yet.
#[derive(Debug)]
pub struct Held {
    /// The socket.
    pub end: EndRecord,
    /// Why.
    pub by: HeldBy,
}

/// What keeps a socket in the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldBy {
    /// Its reader has not read what was redirected to it.
    Unread,
    /// This thread was inside a send to it all the time.
    Sender(Sender),
}

/// Drains the datapath under `pins` and removes it. `progress` is called after every step.
///
/// # Errors
/// [`Error::NotLoaded`], [`Error::Layout`], or when the kernel refuses a step; the datapath works
/// on then and the drain can be begun again.
pub fn detach(
    pins: &Pins,
    deadline: Instant,
    mut progress: impl FnMut(Progress),
) -> Result<Outcome> {
    let maps = Maps::open(pins)?;
    let ends = Ends::load(&maps)?;
    let before = maps.enrolled().len();
    maps.set_mode(Mode::Detaching)?;
    let mut quiesce = Quiesce::begin()?;
    loop {
        let held = release(&maps, &ends, &quiesce.look())?;
        let left = maps.enrolled().len();
        progress(Progress { before, left });
        if left == 0 {
            unlink(pins)?;
            pins.remove()?;
            return Ok(Outcome::Done { released: before });
        }
        if Instant::now() >= deadline {
            return Ok(Outcome::Held(held));
        }
        thread::sleep(INTERVAL);
    }
}

/// Takes off the pinned attachment to the cgroup, if there is one.
fn unlink(pins: &Pins) -> Result<()> {
    let path = pins.link();
    if !path.exists() {
        return Ok(());
    }
    let name = || path.display().to_string();
    let mut link = Link::open(&path).map_err(Error::bpf("open", name()))?;
    // Detached, not only unpinned: an agent may still hold the link.
    link.detach().map_err(Error::bpf("detach", name()))?;
    link.unpin().map_err(Error::bpf("unpin", name()))
}

/// Releases every socket that nothing waits for, and returns the others.
fn release(maps: &Maps, ends: &Ends, senders: &[Sender]) -> Result<Vec<Held>> {
    // In this order: what the list says of a socket that is in the map is no older than the map.
    let enrolled: HashSet<Handshake> = maps.enrolled().into_iter().collect();
    let listed = ends.list(maps)?;
    let inodes: HashMap<Handshake, u64> = listed.iter().map(|e| (e.end.own, e.inode)).collect();
    let mut held = Vec::new();
    for end in listed
        .into_iter()
        .filter(|end| enrolled.contains(&end.end.own))
    {
        let peer_inode = inodes.get(&end.end.own.mirror()).copied();
        match held_by(&end, peer_inode, senders) {
            Some(by) => held.push(Held { end, by }),
            None => {
                maps.release(end.end.own)?;
            }
        }
    }
    Ok(held)
}

/// A sender whose socket is not known may be sending to anyone.
fn held_by(end: &EndRecord, peer_inode: Option<u64>, senders: &[Sender]) -> Option<HeldBy> {
    if end.unread > 0 {
        return Some(HeldBy::Unread);
    }
    senders
        .iter()
        .find(|s| s.socket_inode.is_none() || s.socket_inode == peer_inode || peer_inode.is_none())
        .map(|sender| HeldBy::Sender(sender.clone()))
}
