//! A program that splices although its files do not show it is noticed where the kernel lets programs look at its
//! functions (invariant 2). Needs such a kernel, so that this runs in `make test-kernels`.

mod common;

use std::io;
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::ptr;
use std::time::{Duration, Instant};

use common::stage::Stage;
use common::{Bed, Result, SOON, talk};
use datapath::abi::Reason;
use datapath::drain::{self, Outcome};
use datapath::splice::Splices;
use testbed::traffic::write_all;
use testbed::wait::wait_until;
use testbed::{Cgroup, kernel_test};

/// splice(2) into a pipe, without waiting; how many bytes.
fn splice(from: &TcpStream, into: &impl AsRawFd) -> io::Result<usize> {
    let (from, into, none) = (from.as_raw_fd(), into.as_raw_fd(), ptr::null_mut());
    // SAFETY: the descriptors live, and there are no offsets.
    let got = unsafe { libc::splice(from, none, into, none, 4096, libc::SPLICE_F_NONBLOCK) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

fn hear(bed: &Bed) -> Result<Splices<'_>> {
    Ok(Splices::hear(bed)?.map_err(|refusal| refusal.to_string())?)
}

kernel_test! {
    #[ignore = "needs a kernel with fentry"]
    fn takes_its_connection_back_and_leaves_the_next_alone(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let splices = hear(&bed)?;
        let stage = Stage::new()?;
        let (a, b) = stage.redirected_pair(Some(&bed))?;
        let (_out, into) = io::pipe()?;
        // It splices before there is anything, as whoever waits in poll(2) afterwards does.
        let nothing = splice(&b, &into).expect_err("nothing is there");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(splices.poll(SOON)?, 1);
        assert_eq!(bed.enrolled().len(), 0);
        write_all(&a, b"hello")?;
        let got = wait_until("the data", SOON, || splice(&b, &into).ok())?;
        assert_eq!(got, 5);

        let (a, b) = stage.pair()?;
        talk(&a, &b)?;
        assert_eq!(bed.totals()?.count(Reason::MaySplice), 1);
        Ok(())
    }

    /// What waits keeps it enrolled for a while.
    #[ignore = "needs a kernel with fentry"]
    fn connection_that_is_taken_back_is_told_of_once(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let splices = hear(&bed)?;
        let stage = Stage::new()?;
        let (a, b) = stage.redirected_pair(Some(&bed))?;
        write_all(&a, b"hello")?;
        let (_out, into) = io::pipe()?;
        for told in [1, 0] {
            splice(&b, &into).expect_err("it does not see what was redirected");
            assert_eq!(splices.poll(if told == 1 { SOON } else { Duration::ZERO })?, told);
            assert!(!bed.enrolled().is_empty());
        }
        Ok(())
    }

    #[ignore = "needs a kernel with fentry"]
    fn splice_from_one_that_has_left_says_nothing_of_the_program(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let splices = hear(&bed)?;
        let stage = Stage::new()?;
        let (_a, b) = stage.redirected_pair(Some(&bed))?;
        let outcome = drain::retire(&bed, &bed.conns(), Reason::Retired, Instant::now() + SOON, |_| {})?;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome:?}");
        let (_out, into) = io::pipe()?;
        splice(&b, &into).expect_err("nothing is there");
        assert_eq!(splices.poll(Duration::ZERO)?, 0);

        let _next = stage.pair()?;
        assert_eq!(bed.totals()?.paired, 2);
        Ok(())
    }
}
