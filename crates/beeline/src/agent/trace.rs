//! Fanning trace events out to those who follow; without followers no event is made.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use datapath::Maps;
use datapath::events::Events;
use tracing::warn;

use crate::control;
use crate::observe::event::Event;

/// Events that may wait for one follower; more are dropped and counted for it.
const BACKLOG: usize = 4096;

/// How long a stop or a hung-up follower may go unnoticed.
pub(super) const BEAT: Duration = Duration::from_millis(100);

/// The meeting place of the one reader of the ring buffer and of the followers.
#[derive(Clone, Default)]
pub(super) struct Hub {
    shared: Arc<(Mutex<State>, Condvar)>,
}

#[derive(Default)]
struct State {
    followers: Vec<Follower>,
    closed: bool,
}

struct Follower {
    events: SyncSender<Event>,
    dropped: u64,
    /// Dies with the other side.
    alive: Weak<()>,
}

impl Hub {
    /// Reads events whenever somebody follows, until closed.
    pub(super) fn run(&self, maps: &Maps) {
        while self.wait_for_follower() {
            if let Err(error) = self.read(maps) {
                warn!("tracing stopped: {error}");
                self.state().followers.clear();
            }
        }
    }

    /// Ends [`Hub::run`] and every follower.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.followers.clear();
        self.shared.1.notify_all();
    }

    /// Sends events to a client until it hangs up or the hub is closed.
    pub(super) fn follow(&self, stream: &mut UnixStream) -> io::Result<()> {
        let (events, _alive) = self.subscribe();
        stream.set_nonblocking(false)?;
        loop {
            match events.recv_timeout(BEAT) {
                Ok(event) => control::send(stream, &event)?,
                Err(RecvTimeoutError::Timeout) if hung_up(stream) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn subscribe(&self) -> (Receiver<Event>, Arc<()>) {
        let (events, receiver) = mpsc::sync_channel(BACKLOG);
        let alive = Arc::new(());
        let mut state = self.state();
        if !state.closed {
            let alive = Arc::downgrade(&alive);
            state.followers.push(Follower {
                events,
                dropped: 0,
                alive,
            });
            self.shared.1.notify_all();
        }
        (receiver, alive)
    }

    fn wait_for_follower(&self) -> bool {
        let idle = |state: &mut State| state.followers.is_empty() && !state.closed;
        let state = self.shared.1.wait_while(self.state(), idle);
        !state.unwrap_or_else(PoisonError::into_inner).closed
    }

    fn read(&self, maps: &Maps) -> datapath::Result<()> {
        let events = Events::open(maps, |event| self.publish(&Event::from(event)))?;
        while !self.state().followers.is_empty() {
            events.poll(BEAT)?;
            self.state()
                .followers
                .retain(|f| f.alive.strong_count() > 0);
        }
        Ok(())
    }

    fn publish(&self, event: &Event) {
        self.state()
            .followers
            .retain_mut(|follower| follower.hand(event.clone()));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Follower {
    /// `false` when the follower is gone.
    fn hand(&mut self, mut event: Event) -> bool {
        event.dropped = self.dropped;
        match self.events.try_send(event) {
            Ok(()) => self.dropped = 0,
            Err(TrySendError::Full(_)) => self.dropped += 1,
            Err(TrySendError::Disconnected(_)) => return false,
        }
        true
    }
}

/// A client says nothing after its request, so anything to read is the end.
pub(super) fn hung_up(stream: &UnixStream) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let mut fds = [PollFd::new(stream, PollFlags::IN | PollFlags::HUP)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
