//! Taking connections back to plain TCP without losing a byte (invariant 1): chosen ones, or all and
//! the socket path with them.
//!
//! Every step leaves a state that works, so that it may be interrupted anywhere and begun again:
//!
//! 1. New messages take the kernel path; behind redirected ones that is safe at any byte. The sockets
//!    are no targets any more, so that this holds whatever is enrolled or taken back meanwhile. For a
//!    detach, nothing new is enrolled either.
//! 2. Redirects that are under way end ([`crate::quiesce`]).
//! 3. A socket whose psock queue was read empty leaves the maps and is plain TCP again. Look and
//!    removal happen under the socket's lock (`release.rs`), because bytes of the kernel path
//!    enter that queue at any time.
//! 4. For a detach, when the map is empty the sock_ops attachment goes, then the pins, and with them
//!    the maps and programs. Until then it keeps the books of connections that close meanwhile.

use std::collections::HashSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use libbpf_rs::Link;

use crate::abi::{EndRecord, Handshake, Mode, Reason};
use crate::ends::Ends;
use crate::maps::Maps;
use crate::marks::Marks;
use crate::pins::Pins;
use crate::quiesce::{Quiesce, Sender};
use crate::release::Release;
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
    /// None of the sockets is in the map; after a detach, programs, maps and pins are gone.
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
    /// A thread may sleep in a blocking read of it, and would not see plain TCP's data.
    Reader,
    /// This thread may have been inside a send to it all the time.
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
    maps.set_mode(Mode::Detaching)?;
    let mut senders = Senders::default();
    let everyone = |_: &Handshake| true;
    let mut free = Release::load(&maps, maps.enrolled().len())?;
    let outcome = until(deadline, &maps, everyone, &mut progress, || {
        // A handshake that was ending when the mode changed may have enrolled since.
        let anew = maps.stop_targeting(maps.targets().into_iter())? > 0;
        release(&maps, &ends, &mut free, everyone, &senders.look(anew)?)
    })?;
    if let Outcome::Done { .. } = outcome {
        unlink(&pins.link())?;
        unlink(&pins.setsockopt_link())?;
        pins.remove()?;
    }
    Ok(outcome)
}

/// Takes connections, each named by either end's view of its handshake, back to plain TCP for this
/// reason while their traffic goes on; others are not touched. `progress` is called after every step.
///
/// A socket that a thread reads with a blocking call stays in the maps until that ends.
///
/// # Errors
/// When the kernel refuses a step; the connections work on, over the kernel path if they were told,
/// and it can be begun again.
pub fn retire(
    maps: &Maps,
    connections: &[Handshake],
    reason: Reason,
    deadline: Instant,
    mut progress: impl FnMut(Progress),
) -> Result<Outcome> {
    let mut senders = Senders::default();
    retire_beside(maps, connections, reason, deadline, &mut progress, |anew| {
        senders.look(anew)
    })
}

/// Who may be sending.
#[derive(Default)]
struct Senders(Option<Quiesce>);

impl Senders {
    /// Looks again; `anew`, when something was told to redirect no more only now.
    fn look(&mut self, anew: bool) -> Result<Vec<Sender>> {
        match &mut self.0 {
            Some(quiesce) => {
                if anew {
                    quiesce.begin_again()?;
                }
                quiesce.look()
            }
            none => none.insert(Quiesce::begin()?).look(),
        }
    }
}

/// As [`retire`], when the calling thread has all the sockets and so nothing is on its way.
pub(crate) fn retire_own(
    maps: &Maps,
    connections: &[Handshake],
    deadline: Instant,
) -> Result<Outcome> {
    let nobody = |_| Ok(Vec::new());
    retire_beside(
        maps,
        connections,
        Reason::Retired,
        deadline,
        &mut |_| {},
        nobody,
    )
}

/// `senders` tells who may be sending; it is told when there may be new ones.
fn retire_beside(
    maps: &Maps,
    connections: &[Handshake],
    reason: Reason,
    deadline: Instant,
    progress: &mut impl FnMut(Progress),
    mut senders: impl FnMut(bool) -> Result<Vec<Sender>>,
) -> Result<Outcome> {
    let both_ends = connections.iter().flat_map(|own| [*own, own.mirror()]);
    let chosen: HashSet<Handshake> = both_ends.collect();
    let ends = Ends::load(maps)?;
    let marks = Marks::load(maps, &chosen, reason)?;
    let mut free = Release::load(maps, chosen.len())?;
    let is_chosen = |own: &Handshake| chosen.contains(own);
    until(deadline, maps, is_chosen, progress, || {
        // A server's end may enrol after its client's was told; its messages count from then.
        let told = marks.set()?;
        let anew = told + maps.stop_targeting(chosen.iter().copied())? > 0;
        release(maps, &ends, &mut free, is_chosen, &senders(anew)?)
    })
}

/// Repeats `step`, which returns what may still be held, until none of the chosen sockets is in the
/// map.
fn until(
    deadline: Instant,
    maps: &Maps,
    chosen: impl Fn(&Handshake) -> bool,
    progress: &mut impl FnMut(Progress),
    mut step: impl FnMut() -> Result<Vec<Held>>,
) -> Result<Outcome> {
    let enrolled = || -> HashSet<Handshake> {
        maps.enrolled()
            .into_iter()
            .filter(|own| chosen(own))
            .collect()
    };
    let before = enrolled().len();
    loop {
        let mut held = step()?;
        let left = enrolled();
        progress(Progress {
            before,
            left: left.len(),
        });
        if left.is_empty() {
            return Ok(Outcome::Done { released: before });
        }
        if Instant::now() >= deadline {
            held.retain(|held| left.contains(&held.end.end.own));
            return Ok(Outcome::Held(held));
        }
        thread::sleep(INTERVAL);
    }
}

/// Takes off a pinned attachment to the cgroup, if there is one.
fn unlink(path: &Path) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let name = || path.display().to_string();
    let mut link = Link::open(path).map_err(Error::bpf("open", name()))?;
    // Detached, not only unpinned: an agent may still hold the link.
    link.detach().map_err(Error::bpf("detach", name()))?;
    link.unpin().map_err(Error::bpf("unpin", name()))
}

/// Releases every chosen socket that nothing waits for, and returns all of them with what may hold
/// them up: of one that only its readers may, the map tells whether it was released.
fn release(
    maps: &Maps,
    ends: &Ends,
    free: &mut Release,
    chosen: impl Fn(&Handshake) -> bool,
    senders: &[Sender],
) -> Result<Vec<Held>> {
    // In this order: what the list says of a socket that is in the map is no older than the map.
    let enrolled: HashSet<Handshake> = maps.enrolled().into_iter().filter(chosen).collect();
    let listed = ends.list(maps)?;
    let (mut held, mut idle) = (Vec::new(), Vec::new());
    for end in listed
        .into_iter()
        .filter(|end| enrolled.contains(&end.end.own))
    {
        match held_by(&end, senders) {
            Some(by) => held.push(Held { end, by }),
            None => idle.push(end),
        }
    }
    free.free(maps, &idle)?;
    held.extend(idle.into_iter().map(|end| Held {
        end,
        by: HeldBy::Reader,
    }));
    Ok(held)
}

/// Any sender may be sending to anyone.
fn held_by(end: &EndRecord, senders: &[Sender]) -> Option<HeldBy> {
    if end.unread > 0 {
        return Some(HeldBy::Unread);
    }
    senders.first().cloned().map(HeldBy::Sender)
}
