//! `memory_limit`, which is for all sockets of the host: above it every sender takes the kernel path, whoever has the
//! memory, and comes back when there is some (invariants 1, 2, 5). In a file of its own, as stalled.rs is.

mod common;

use std::net::TcpStream;
use std::thread;

use common::stage::Stage;
use common::{Bed, Result, exchange, expect_reasons, fill, fill_up, seed, talk};
use datapath::Maps;
use datapath::abi::Reason;
use datapath::probe;
use datapath::socket::{Options, memory_limit};
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{read_all, stream};
use testbed::{Cgroup, kernel_test};

/// Bytes that connections hold which are not enrolled; and the limit, of which these make much.
const HELD: u64 = 32 << 20;
const LIMIT: u64 = HELD / 2;

/// Redirected bytes that are unread when memory runs short, and bytes that come behind them.
const BEFORE: u64 = 200_000;
const BEHIND: u64 = 100_000;

type Pair = (TcpStream, TcpStream);

/// The limit comes into force, as when the agent reads its configuration anew.
fn limit(bed: &Bed) -> Result {
    let pages = LIMIT / rustix::param::page_size() as u64;
    Ok(Maps::change(bed, |settings| settings.memory_limit = pages)?)
}

/// Connections whose readers do not read, and what they hold at least.
struct Hog {
    pairs: Vec<Pair>,
    held: u64,
}

impl Hog {
    /// Before there is a bed: they are plain TCP.
    fn connect(stage: &Stage) -> Result<Self> {
        let pairs = (0..300).map(|_| stage.pair()).collect::<Result<_>>()?;
        Ok(Self { pairs, held: 0 })
    }

    /// From here on the host uses more than the limit.
    fn fill(&mut self) -> Result {
        for (a, _) in &mut self.pairs {
            if self.held < HELD {
                self.held += fill(a, &mut Pattern::new(seed()), 65_536)?;
            }
        }
        assert!(self.held >= HELD, "{} bytes are held", self.held);
        let pages = probe::tcp_memory_used()?.ok_or("no TCP in sockstat")?;
        assert!(pages * rustix::param::page_size() as u64 > LIMIT);
        Ok(())
    }
}

/// Sends on behind what waits, over the kernel path, which takes less than that at once; all is read in order.
fn send_behind(a: &TcpStream, b: &TcpStream, seed: u64, pattern: &mut Pattern) -> Result {
    let mut got = vec![0; usize::try_from(BEFORE + BEHIND)?];
    thread::scope(|scope| {
        let sender = scope.spawn(|| stream::send_from(a, pattern, BEHIND, 10_000));
        read_all(b, &mut got)?;
        sender.join().expect("it only sends")?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>(())
    })?;
    assert_eq!(
        Pattern::new(seed).differs(&got),
        None,
        "the first wrong byte"
    );
    Ok(())
}

kernel_test! {
    fn limit_is_three_quarters_of_what_tcp_uses_without_a_thought(cgroup: &Cgroup) -> Result {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem")?;
        let low: u64 = text.split_whitespace().next().ok_or("no number")?.parse()?;
        let bed = Bed::with(cgroup, Options::default())?;
        let limit = bed.settings()?.memory_limit;
        assert_eq!(limit, memory_limit());
        assert!((low - low / 4 - 4..=low - low / 4).contains(&limit), "{limit} pages of {low}");
        Ok(())
    }

    fn senders_take_the_kernel_path_and_come_back(cgroup: &Cgroup) -> Result {
        const PAIRS: usize = 3;
        let stage = Stage::new()?;
        let mut hog = Hog::connect(&stage)?;
        let bed = Bed::on(cgroup)?;
        let pairs: Vec<Pair> = (0..PAIRS).map(|_| stage.pair()).collect::<Result<_>>()?;
        let mut streams = Vec::new();
        for (a, b) in &pairs {
            talk(a, b)?;
            let seed = seed();
            let mut pattern = Pattern::new(seed);
            stream::send_from(a, &mut pattern, BEFORE, 10_000)?;
            streams.push((seed, pattern));
        }
        let before = PAIRS as u64 * (BEFORE + 10);
        assert_eq!(bed.moved()?, (before, 0));

        hog.fill()?;
        limit(&bed)?;
        for ((a, b), (seed, pattern)) in pairs.iter().zip(&mut streams) {
            send_behind(a, b, *seed, pattern)?;
            talk(a, b)?;
        }
        let behind = PAIRS as u64 * (BEHIND + 10);
        assert_eq!(bed.moved()?, (before, behind));
        let full = (Reason::QueueFull, 2 * PAIRS as u64);
        expect_reasons(&bed.totals()?, &[full]);
        assert_eq!(bed.enrolled().len(), 2 * PAIRS, "none has left");

        drop(hog);
        for pair in &pairs {
            bed.until_redirected(pair)?;
        }
        let (redirected, _) = bed.moved()?;
        for (a, b) in &pairs {
            exchange(a, b, BEHIND)?;
        }
        assert!(bed.moved()?.0 > redirected);
        Ok(())
    }

    /// As over plain TCP: the sender has to wait, and hears of no error.
    fn sender_waits_for_a_reader_that_is_behind(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let mut hog = Hog::connect(&stage)?;
        let bed = Bed::on(cgroup)?;
        let (mut a, b) = stage.pair()?;
        talk(&a, &b)?;
        hog.fill()?;
        limit(&bed)?;
        let seed = seed();
        let filled = fill_up(&mut a, &mut Pattern::new(seed))?;
        assert_ne!(filled, 0);
        assert_eq!(bed.moved()?.0, 10, "what fills is not redirected");
        stream::finish(&a)?;
        assert_eq!(stream::receive(&b, 100_000)?, stream::expected(seed, filled));
        Ok(())
    }
}
