//! Enrolling connections that are live: from before the attachment, or not fit at first.

use std::thread;
use std::time::{Duration, Instant};

use datapath::adopt::Adopter;
use datapath::earlier::Earlier;
use datapath::{Maps, Result};
use tracing::{info, warn};

use super::reload::Live;

/// Least time between two looks for connections that have become fit; and at most one part in so many
/// of the time is spent looking.
const PERIOD: Duration = Duration::from_millis(50);
const SHARE: u32 = 200;

/// From one look for earlier connections to the second. Each later one comes after twice the time: one
/// end may have been in the middle of something, or its program unknown.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Then nobody looks for more: those that are left hardly change.
const LAST_PAUSE: Duration = Duration::from_secs(1024);

/// Looks again and again.
pub(super) fn run(live: &Live, maps: &Maps) {
    if let Err(error) = look(live, maps) {
        warn!(
            "live connections are not adopted; those that blocked when they were made, and those from \
             before the agent, stay on the kernel path: {error}"
        );
    }
}

fn look(live: &Live, maps: &Maps) -> Result<()> {
    let adopter = Adopter::load(maps)?;
    let mut past = Past::new(maps)?;
    loop {
        let begin = Instant::now();
        past.look(live, maps, &adopter)?;
        adopter.look()?;
        thread::sleep((begin.elapsed() * SHARE).max(PERIOD));
    }
}

/// Looks for connections from before the attachment.
struct Past {
    earlier: Earlier,
    next: Instant,
    pause: Duration,
}

impl Past {
    fn new(maps: &Maps) -> Result<Self> {
        Ok(Self {
            earlier: Earlier::load(maps)?,
            next: Instant::now(),
            pause: FIRST_PAUSE,
        })
    }

    fn look(&mut self, live: &Live, maps: &Maps, adopter: &Adopter) -> Result<()> {
        if Instant::now() < self.next || self.pause > LAST_PAUSE {
            return Ok(());
        }
        let mut found = 0;
        for pairs in self.earlier.find()?.chunks(Earlier::AT_ONCE) {
            found += live.rules().remember(maps, &self.earlier, pairs)?;
            // Those that wait have bounded room.
            adopter.look()?;
        }
        if found > 0 {
            info!(
                connections = found,
                "found connections from before the agent"
            );
        }
        self.next = Instant::now() + self.pause;
        self.pause *= 2;
        Ok(())
    }
}
