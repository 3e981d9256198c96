//! Taking connections back to plain TCP from which a program splices although nobody could tell.

use std::time::Duration;

use datapath::splice::Splices;
use datapath::{Maps, Result};
use tracing::{info, warn};

/// From one look for news to the next, if there are none.
const LISTEN: Duration = Duration::from_secs(1);

/// Again and again; where the kernel forbids it, not at all.
pub(super) fn run(maps: &Maps) {
    if let Err(error) = listen(maps) {
        warn!("programs that splice unexpectedly are not noticed: {error}");
    }
}

fn listen(maps: &Maps) -> Result<()> {
    // `beeline doctor` says what that means.
    let Ok(splices) = Splices::hear(maps)? else {
        return Ok(());
    };
    loop {
        let retired = splices.poll(LISTEN)?;
        if retired > 0 {
            info!("{retired} connections went back to plain TCP, as a program splices from them");
        }
    }
}
