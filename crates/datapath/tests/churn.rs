//! Many short connections leave nothing behind.

mod common;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use common::{Bed, Result, SOON, expect_connections, expect_reasons};
use datapath::tidy::Tidy;
use testbed::{Cgroup, NetNs, kernel_test, wait_for};

/// Connections of the test; `BEELINE_CHURN` asks for another number.
const CONNECTIONS: u64 = 1_000_000;
/// Connections that a thread has in flight.
const FLIGHT: u64 = 32;
const THREADS: u64 = 2;
const QUESTION: usize = 5;
const ANSWER: usize = 9;

fn connections() -> Result<u64> {
    let asked = std::env::var("BEELINE_CHURN").ok();
    let count = asked.map_or(Ok(CONNECTIONS), |text| text.parse())?;
    Ok(count / (THREADS * FLIGHT) * (THREADS * FLIGHT))
}

/// Connects, asks, answers, closes, all in one thread, which waits for nobody.
fn churn(listener: &TcpListener, addr: SocketAddr, count: u64) -> Result {
    let mut pairs = Vec::new();
    for first in (0..count).step_by(FLIGHT as usize) {
        for _ in 0..FLIGHT {
            let a = testbed::traffic::connect(addr)?;
            pairs.push((a, testbed::traffic::accept(listener)?));
        }
        for (number, (a, _)) in (first..).zip(&mut pairs) {
            testbed::traffic::write_all(a, &number.to_le_bytes()[..QUESTION])?;
        }
        for (_, b) in &mut pairs {
            let mut got = [0; ANSWER];
            testbed::traffic::read_all(b, &mut got[..QUESTION])?;
            testbed::traffic::write_all(b, &got)?;
        }
        for (number, (a, b)) in (first..).zip(pairs.drain(..)) {
            let mut got = [0; ANSWER];
            testbed::traffic::read_all(&a, &mut got)?;
            assert_eq!(got[..QUESTION], number.to_le_bytes()[..QUESTION]);
            // Either end may be the first to close.
            if number % 2 == 0 { drop(b) } else { drop(a) }
        }
    }
    Ok(())
}

kernel_test! {
    #[deadline(240)]
    fn a_million_short_connections_leave_nothing(cgroup: &Cgroup) -> Result {
        let count = connections()?;
        let bed = Bed::on(cgroup)?;
        let pod = NetNs::new("pod")?;
        // Else the ports would be used up by connections that are over.
        pod.sysctl("net.ipv4.tcp_max_tw_buckets", 1000)?;
        pod.sysctl("net.ipv4.ip_local_port_range", "10000 65000")?;
        let threads = (0..THREADS).map(|n| {
            // Addresses of their own, so that each accepts what it connected.
            let own = Ipv4Addr::new(127, 0, 0, 1 + n as u8);
            let (listener, addr) = pod.listen((own, 8080))?;
            Ok(pod.spawn(move || churn(&listener, addr, count / THREADS))?)
        });
        for thread in threads.collect::<Result<Vec<_>>>()? {
            thread.join_within(Duration::from_secs(230))??;
        }
        all_closed(&bed, count)
    }
}

/// No map has an element, and every byte was redirected. Of some ends TCP does not tell, on some kernels:
/// bpf/tidy.bpf.c.
fn all_closed(bed: &Bed, count: u64) -> Result {
    const UNTOLD: u64 = 16;
    let bytes = count * (QUESTION + ANSWER) as u64;
    let tidy = Tidy::load(bed)?;
    wait_for("the end of every record", SOON, || {
        tidy.look().is_ok() && bed.left_over(UNTOLD).is_empty()
    })
    .map_err(|error| format!("{error}: {}", bed.left_over(UNTOLD).join(", ")))?;
    let totals = bed.totals()?;
    expect_reasons(&totals, &[]);
    expect_connections(&totals, count);
    let untold = (totals.enrolled - totals.closed) * ANSWER as u64;
    let redirected = totals.closed_redirected_bytes;
    assert!(
        (bytes - untold..=bytes).contains(&redirected),
        "{redirected} of {bytes} bytes"
    );
    assert_eq!(totals.closed_kernel_bytes, 0);
    Ok(())
}
