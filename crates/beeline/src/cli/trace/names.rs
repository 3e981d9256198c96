//! Who holds the sockets that events tell of.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use datapath::abi::EventKind;
use datapath::{Maps, Result, socket};

use crate::instance::Instance;
use crate::observe::event::Event;
use crate::observe::picture::Camera;
use crate::workload::Workload;

/// Between two looks; each may ask every process on the host for its files.
const PAUSE: Duration = Duration::from_millis(100);

/// Network namespace, own and peer's address. Not the cookie: a server's end has none yet when it is enrolled.
type Socket = (u32, SocketAddr, SocketAddr);

type Known = HashMap<Socket, Vec<Workload>>;

/// Workloads by socket: the socket's own first, then the peer's.
pub(super) struct Names {
    maps: Maps,
    camera: Camera,
    /// By the last look.
    known: Known,
    /// By the one before it: for sockets that are gone, and whose last events are on their way.
    before: Known,
    /// When the last look began; as events tell the time, too.
    looked: Option<(Instant, u64)>,
}

impl Names {
    /// Nothing is looked at yet.
    pub(super) fn open(instance: &Instance) -> Result<Self> {
        let maps = Maps::open(&instance.pins())?;
        Ok(Self {
            camera: Camera::new(instance, &maps)?,
            maps,
            known: Known::new(),
            before: Known::new(),
            looked: None,
        })
    }

    /// Who is at the ends of an event's connection; nobody if that can no longer be told.
    pub(super) fn of(&mut self, event: &Event) -> Result<Vec<Workload>> {
        let closed = event.event == EventKind::Closed.name();
        // A socket has no holder until it is accepted.
        let complete = |known: &Vec<Workload>| known.iter().all(|one| one.pid.is_some());
        let socket = (event.netns, event.local, event.remote);
        if !self
            .known(&socket)
            .is_some_and(|known| closed || complete(known))
        {
            self.look_after(event.at_ns)?;
        }
        Ok(self.known(&socket).cloned().unwrap_or_default())
    }

    fn known(&self, socket: &Socket) -> Option<&Vec<Workload>> {
        self.known.get(socket).or_else(|| self.before.get(socket))
    }

    /// A look that began after an event has seen all that can be seen of it.
    fn look_after(&mut self, at_ns: u64) -> Result<()> {
        match self.looked {
            Some((_, looked_ns)) if looked_ns > at_ns => return Ok(()),
            Some((looked, _)) => thread::sleep(PAUSE.saturating_sub(looked.elapsed())),
            None => {}
        }
        self.looked = Some((Instant::now(), socket::monotonic_ns()));
        self.before = std::mem::take(&mut self.known);
        for conn in &self.camera.look(&self.maps)?.conns {
            for end in conn.ends() {
                let peer = conn.ends().find(|other| other.cookie != end.cookie);
                let both = [Some(end), peer].into_iter().flatten();
                let both = both.map(|end| end.workload.clone()).collect();
                self.known.insert((end.netns, end.local, end.remote), both);
            }
        }
        Ok(())
    }
}
