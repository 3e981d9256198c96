//! Keeping connection tracking from forgetting connections whose data it does not see.

use std::thread;
use std::time::Duration;

use datapath::keepalive::Keepalive;
use datapath::{Maps, Result};
use tracing::warn;

/// From one keepalive to the next. Connection tracking remembers an established connection for five
/// days (nf_conntrack_proto_tcp.c, 6.18), hosts of containers for a day or less.
const PERIOD: Duration = Duration::from_secs(120);

/// TCP sends it within a second.
const MOMENT: Duration = Duration::from_millis(1500);

/// Again and again.
pub(super) fn run(maps: &Maps) {
    if let Err(error) = keep(maps) {
        warn!(
            "NAT may forget connections whose data is redirected for longer than connection tracking \
             remembers (net.netfilter.nf_conntrack_tcp_timeout_established): {error}"
        );
    }
}

fn keep(maps: &Maps) -> Result<()> {
    let keepalive = Keepalive::load(maps)?;
    // What an agent took that was killed in between.
    keepalive.end(maps)?;
    loop {
        keepalive.begin(maps)?;
        thread::sleep(MOMENT);
        keepalive.end(maps)?;
        thread::sleep(PERIOD);
    }
}
