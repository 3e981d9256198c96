//! A connection that has left the maps is plain TCP and costs nothing: no program of ours runs for it.

mod common;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::{Duration, Instant};

use common::stage::Stage;
use common::{Bed, GRACE, Result, SOON, poll, set_option, talk};
use datapath::abi::Reason;
use datapath::drain::{self, Outcome};
use libbpf_rs::libbpf_sys;
use libbpf_rs::query::ProgInfoIter;
use socket2::SockRef;
use testbed::traffic::{read_all, write_all};
use testbed::{Cgroup, kernel_test, wait_for};

/// Messages of an exchange.
const MESSAGES: usize = 100;

/// Counts runs of the programs that are attached: to the cgroup, and to the map of enrolled sockets.
struct Runs {
    programs: Vec<u32>,
    // The kernel counts until this is closed.
    _counting: OwnedFd,
}

impl Runs {
    fn of(bed: &Bed, cgroup: &Cgroup) -> Result<Self> {
        let dir = File::open(cgroup.path())?;
        let (dir, socks) = (dir.as_raw_fd(), bed.get("socks").as_fd().as_raw_fd());
        let attached = [
            (dir, libbpf_sys::BPF_CGROUP_SOCK_OPS),
            (dir, libbpf_sys::BPF_CGROUP_SETSOCKOPT),
            (socks, libbpf_sys::BPF_SK_MSG_VERDICT),
            (socks, libbpf_sys::BPF_SK_SKB_STREAM_VERDICT),
        ];
        let programs = attached.map(|(to, how)| attached_to(to, how));
        Ok(Self {
            programs: programs.into_iter().collect::<io::Result<_>>()?,
            _counting: counting()?,
        })
    }

    /// By the program's name, of which the kernel keeps 15 bytes.
    fn now(&self) -> HashMap<String, u64> {
        let ours = ProgInfoIter::default().filter(|info| self.programs.contains(&info.id));
        let counts: HashMap<_, _> = ours
            .map(|info| (info.name.to_string_lossy().into_owned(), info.run_cnt))
            .collect();
        assert_eq!(counts.len(), self.programs.len(), "{counts:?}");
        counts
    }

    /// Those that ran during a call, and how often.
    fn during(&self, call: impl FnOnce() -> Result) -> Result<HashMap<String, u64>> {
        let before = self.now();
        call()?;
        let mut ran = self.now();
        for (name, count) in &mut ran {
            *count -= before[name];
        }
        ran.retain(|_, count| *count > 0);
        Ok(ran)
    }
}

/// The one program that is attached there in that way.
fn attached_to(to: RawFd, how: libbpf_sys::bpf_attach_type) -> io::Result<u32> {
    let (mut id, mut count, mut flags) = (0, 1, 0);
    // SAFETY: there is room for as many numbers as `count` says.
    let done = unsafe {
        libbpf_sys::bpf_prog_query(to, how, 0, &raw mut flags, &raw mut id, &raw mut count)
    };
    if done < 0 {
        return Err(io::Error::from_raw_os_error(-done));
    }
    assert_eq!(count, 1, "programs attached as {how}");
    Ok(id)
}

fn counting() -> io::Result<OwnedFd> {
    // SAFETY: takes a number, and returns a descriptor of our own or an error.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: it was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

type Pair = (TcpStream, TcpStream);

/// Messages both ways, each read before the next.
fn chat((a, b): &Pair) -> Result {
    (0..MESSAGES).try_for_each(|_| talk(a, b))
}

/// None that leaves does so while it does not talk.
fn wait_plain(bed: &Bed, (a, b): &Pair) -> Result {
    let plain = || {
        talk(a, b).expect("it talks");
        let ends = bed.ends().expect("it lists");
        ends.len() == 2 && ends.iter().all(|end| end.has_psock == 0)
    };
    Ok(wait_for("plain TCP", SOON, plain)?)
}

/// Nothing runs for what is said. It may for segments that TCP takes the slow way, as it does when the peer's
/// window has changed (tcp_rcv_established, net/ipv4/tcp_input.c, 6.18), which ends when that is large enough.
fn expect_nothing_runs(runs: &Runs, pair: &Pair, say: impl Fn(&Pair) -> Result) -> Result {
    let mut ran = HashMap::new();
    let nothing_runs = || {
        ran = runs.during(|| say(pair)).expect("it talks");
        ran.is_empty()
    };
    wait_for("a conversation for which nothing runs", SOON, nothing_runs)
        .map_err(|error| format!("{error}: {ran:?}").into())
}

/// An enrolled connection, for the messages of which sk_msg runs, leaves; then nothing does.
fn costs_nothing_after(cgroup: &Cgroup, leave: impl Fn(&Bed, &Pair) -> Result) -> Result {
    let stage = Stage::new()?;
    let bed = Bed::on(cgroup)?;
    let runs = Runs::of(&bed, cgroup)?;
    let pair = stage.pair()?;
    let enrolled = runs.during(|| chat(&pair))?;
    assert_eq!(enrolled["beeline_sk_msg"], 2 * MESSAGES as u64);
    leave(&bed, &pair)?;
    wait_plain(&bed, &pair)?;
    expect_nothing_runs(&runs, &pair, chat)
}

/// Also one that never was enrolled.
fn costs_nothing_from_the_start(
    cgroup: &Cgroup,
    connect: impl Fn(&Stage) -> Result<Pair>,
) -> Result {
    let stage = Stage::new()?;
    let bed = Bed::on(cgroup)?;
    let runs = Runs::of(&bed, cgroup)?;
    let pair = connect(&stage)?;
    assert!(bed.enrolled().is_empty());
    expect_nothing_runs(&runs, &pair, chat)
}

fn retire(bed: &Bed, _: &Pair) -> Result {
    let until = Instant::now() + SOON;
    let outcome = drain::retire(bed, &bed.conns(), Reason::Retired, until, |_| {})?;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
    Ok(())
}

/// Both ends get an option that redirected data would not heed.
fn set_options(_: &Bed, (a, b): &Pair) -> Result {
    for sock in [a, b] {
        set_option(sock, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)?;
    }
    Ok(())
}

fn block(_: &Bed, (a, b): &Pair) -> Result {
    // Sooner, they might have been accepted and not be through with fcntl.
    thread::sleep(GRACE);
    for sock in [a, b] {
        sock.set_nonblocking(false)?;
    }
    Ok(())
}

fn urge(_: &Bed, (a, b): &Pair) -> Result {
    assert_eq!(SockRef::from(a).send_out_of_band(b"!")?, 1);
    let urgent = || poll(b, libc::POLLPRI, Duration::ZERO) != 0;
    wait_for("urgent data", SOON, urgent)?;
    assert_eq!(
        SockRef::from(b).recv_out_of_band(&mut [MaybeUninit::uninit()])?,
        1
    );
    Ok(())
}

/// More in a row than make a connection leave.
fn stream_small_writes(_: &Bed, (a, b): &Pair) -> Result {
    let small = [0; 200];
    for byte in small.chunks(1) {
        write_all(a, byte)?;
    }
    Ok(read_all(b, &mut { small })?)
}

kernel_test! {
    fn a_connection_that_was_retired_costs_nothing(cgroup: &Cgroup) -> Result {
        costs_nothing_after(cgroup, retire)
    }

    fn a_connection_whose_ends_have_an_option_costs_nothing(cgroup: &Cgroup) -> Result {
        costs_nothing_after(cgroup, set_options)
    }

    fn a_connection_whose_ends_block_costs_nothing(cgroup: &Cgroup) -> Result {
        costs_nothing_after(cgroup, block)
    }

    fn a_connection_that_left_for_urgent_data_costs_nothing(cgroup: &Cgroup) -> Result {
        costs_nothing_after(cgroup, urge)
    }

    /// TCP never takes urgent data the fast way, and so tells of it whoever wants to hear of that.
    fn segments_that_tcp_takes_the_slow_way_cost_nothing_either(cgroup: &Cgroup) -> Result {
        let stage = Stage::new()?;
        let bed = Bed::on(cgroup)?;
        let runs = Runs::of(&bed, cgroup)?;
        for leave in [stream_small_writes, retire, set_options, block, urge] {
            let pair = stage.pair()?;
            talk(&pair.0, &pair.1)?;
            leave(&bed, &pair)?;
            wait_plain(&bed, &pair)?;
            expect_nothing_runs(&runs, &pair, |pair| urge(&bed, pair))?;
            drop(pair);
            bed.emptied()?;
        }
        Ok(())
    }

    fn a_connection_that_left_for_small_writes_costs_nothing(cgroup: &Cgroup) -> Result {
        costs_nothing_after(cgroup, stream_small_writes)
    }

    fn a_connection_that_blocks_from_the_start_costs_nothing(cgroup: &Cgroup) -> Result {
        costs_nothing_from_the_start(cgroup, Stage::blocking_pair)
    }
}
