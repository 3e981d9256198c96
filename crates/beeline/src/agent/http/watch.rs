//! Looking at the host for those who watch the page; without any, nothing is looked at.

use std::sync::Arc;
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::Maps;
use serde::Serialize;
use tokio::sync::watch::{self, Receiver, Sender};

use crate::instance::Instance;
use crate::observe::picture::Camera;
use crate::observe::rates::{Live, Meter};
use crate::observe::status::{self, Status};

/// Least time between two looks; and at most one part in so many of the time is spent looking.
const PERIOD: Duration = Duration::from_secs(1);
const SHARE: u32 = 10;

/// Each has a connection, and nothing tells who they are.
const MOST_WATCHERS: usize = 32;

/// What watchers are told.
#[derive(Clone)]
pub(super) enum Moment {
    /// JSON, see [`Sight`].
    Sight(Arc<str>),
    /// What went wrong.
    Trouble(Arc<str>),
}

/// Everything at one moment.
#[derive(Serialize)]
struct Sight<'a> {
    /// As `beeline status --json` prints it.
    status: &'a Status,
    /// As `beeline conns --sort rate --json` prints them, the oldest first.
    conns: &'a [Live],
    /// In so many milliseconds there is another one.
    next_ms: u64,
}

/// A thread that looks while somebody watches.
pub(super) struct Watch {
    moments: Sender<Moment>,
    thread: Thread,
}

impl Watch {
    /// Nobody watches yet.
    pub(super) fn start(instance: Instance) -> Self {
        let (moments, _) = watch::channel(Moment::Trouble("".into()));
        let to = moments.clone();
        let thread = thread::spawn(move || run(&instance, &to)).thread().clone();
        Self { moments, thread }
    }

    /// What is seen from now on; `None` if too many watch.
    pub(super) fn join(&self) -> Option<Receiver<Moment>> {
        let watcher = self.moments.subscribe();
        let room = self.moments.receiver_count() <= MOST_WATCHERS;
        self.thread.unpark();
        room.then_some(watcher)
    }
}

fn run(instance: &Instance, to: &Sender<Moment>) {
    loop {
        if to.receiver_count() == 0 {
            thread::park();
        } else if let Err(error) = look(instance, to) {
            to.send_replace(Moment::Trouble(format!("{error:#}").into()));
            thread::sleep(PERIOD);
        }
    }
}

/// Looks again and again until nobody watches.
fn look(instance: &Instance, to: &Sender<Moment>) -> Result<()> {
    let maps = Maps::open(&instance.pins())?;
    let (mut camera, mut meter) = (Camera::new(instance, &maps)?, Meter::default());
    while to.receiver_count() > 0 {
        let begin = Instant::now();
        let conns = meter.measure(camera.look(&maps)?, begin).live;
        let status = status::read(instance)?;
        let pause = (begin.elapsed() * SHARE).max(PERIOD);
        let sight = Sight {
            status: &status,
            conns: &conns,
            next_ms: u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
        };
        to.send_replace(Moment::Sight(serde_json::to_string(&sight)?.into()));
        thread::sleep(pause);
    }
    Ok(())
}
