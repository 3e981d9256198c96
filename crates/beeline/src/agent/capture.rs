//! Who may capture: one at a time, as long as it is connected.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use datapath::{Maps, capture};
use tracing::{info, warn};

use super::trace::{BEAT, hung_up};
use crate::control::{self, Capturing};
use crate::instance::Instance;

/// Times [`BEAT`] that a client may wait for another to end.
const PATIENCE: u32 = 10;

/// Lets one client after the other capture.
#[derive(Clone)]
pub(super) struct Gate {
    instance: Instance,
    one: Arc<Mutex<()>>,
}

impl Gate {
    pub(super) fn new(instance: Instance) -> Self {
        let one = Arc::default();
        Self { instance, one }
    }

    /// Switches capturing on until the client hangs up, and leaves nothing of it behind.
    pub(super) fn capture(&self, stream: &mut UnixStream, bytes: u32) -> io::Result<()> {
        let Some(_one) = self.wait() else {
            return refuse(
                stream,
                "somebody captures already: wait until that ends".into(),
            );
        };
        let maps = match self.begin(bytes) {
            Ok(maps) => maps,
            Err(error) => return refuse(stream, error.to_string()),
        };
        info!("capturing what connections send has begun");
        let told = control::send(stream, &Capturing::Begun);
        while told.is_ok() && !hung_up(stream) {
            thread::sleep(BEAT);
        }
        if let Err(error) = capture::set(&maps, 0).and_then(|()| capture::clear(&maps)) {
            warn!("capturing goes on without a reader: {error}");
        }
        info!("capturing what connections send has ended");
        told
    }

    /// For a moment: that the last one hung up may not have been noticed yet.
    fn wait(&self) -> Option<MutexGuard<'_, ()>> {
        (0..PATIENCE).find_map(|_| {
            let one = self.one.try_lock().ok();
            if one.is_none() {
                thread::sleep(BEAT);
            }
            one
        })
    }

    fn begin(&self, bytes: u32) -> datapath::Result<Maps> {
        let maps = Maps::open(&self.instance.pins())?;
        capture::set(&maps, bytes)?;
        Ok(maps)
    }
}

fn refuse(stream: &mut UnixStream, why: String) -> io::Result<()> {
    control::send(stream, &Capturing::Refused { why })
}
