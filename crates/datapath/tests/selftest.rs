//! The self-test finds nothing where all is well, and what is wrong where a program is: the checks run
//! on real connections in both cases.

mod common;

use std::os::fd::{AsFd, AsRawFd};

use common::{Elf, Result};
use datapath::pins::{self, Pins};
use datapath::selftest::{self, Check, Failure, Finding};
use datapath::socket::{Options, SocketPath};
use libbpf_rs::{MapHandle, Object, ObjectBuilder};
use testbed::{Cgroup, kernel_test};

static WRONG: &Elf<[u8]> = &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/wrong.bpf.o")));

/// A small queue, so that it is full soon, and no regard to what others use of the host's memory.
fn options() -> Options {
    Options {
        queue_limit: 256 << 10,
        memory_limit: u64::MAX,
        ..Options::default()
    }
}

fn findings(cgroup: &Cgroup, options: Options) -> Result<Vec<Finding>> {
    let mut path = SocketPath::load(options)?;
    path.attach(cgroup.path())?;
    Ok(selftest::run(&path)?)
}

fn failed(findings: &[Finding], check: Check) -> Option<&Failure> {
    let finding = findings.iter().find(|finding| finding.check == check);
    finding.expect("every check runs").failure.as_ref()
}

/// A socket path whose sockets run another program. Its maps are pinned, because that is how
/// others find them.
struct Sabotaged {
    pins: Pins,
    path: SocketPath,
    _wrong: Object,
}

impl Sabotaged {
    fn by(program: &str, cgroup: &Cgroup) -> Result<Self> {
        if !pins::bpffs_mounted()? {
            pins::mount_bpffs()?;
        }
        let pins = Pins::of(&format!("blt-{}", std::process::id()));
        let mut path = SocketPath::load_pinned(options(), &pins)?;
        path.attach_pinned(cgroup.path(), &pins)?;
        let wrong = wrong(&pins)?;
        let socks = MapHandle::from_pinned_path(pins.map("socks"))?;
        {
            let found = wrong.progs_mut().find(|other| other.name() == program);
            let program = found.ok_or("no such program")?;
            program.attach_sockmap(socks.as_fd().as_raw_fd())?;
        }
        Ok(Self {
            pins,
            path,
            _wrong: wrong,
        })
    }
}

impl Drop for Sabotaged {
    fn drop(&mut self) {
        let _ = self.pins.remove();
    }
}

/// The programs of tests/bpf/wrong.bpf.c over the pinned maps.
fn wrong(pins: &Pins) -> Result<Object> {
    let mut open = ObjectBuilder::default().open_memory(&WRONG.0)?;
    for mut map in open.maps_mut() {
        let path = pins.map(&map.name().to_string_lossy());
        if path.exists() {
            map.reuse_fd(MapHandle::from_pinned_path(path)?.as_fd())?;
        }
    }
    Ok(open.load()?)
}

kernel_test! {
    fn nothing_is_found_where_all_is_well(cgroup: &Cgroup) -> Result {
        for finding in findings(cgroup, options())? {
            let differs = matches!(finding.check, Check::Splice);
            assert!(differs || finding.failure.is_none(), "{finding:?}");
            // What differs between kernels never damages data.
            assert!(!matches!(finding.failure, Some(Failure::Data(_))), "{finding:?}");
        }
        Ok(())
    }

    fn damage_is_found(cgroup: &Cgroup) -> Result {
        let sabotaged = Sabotaged::by("damage", cgroup)?;
        let found = selftest::run(&sabotaged.path)?;
        for check in [Check::Integrity, Check::Order] {
            assert!(matches!(failed(&found, check), Some(Failure::Data(_))), "{found:?}");
        }
        Ok(())
    }

    fn a_queue_without_limit_and_a_send_after_shutdown_are_found(cgroup: &Cgroup) -> Result {
        let sabotaged = Sabotaged::by("hoard", cgroup)?;
        let found = selftest::run(&sabotaged.path)?;
        for check in [Check::BackPressure, Check::ShutDown] {
            assert!(matches!(failed(&found, check), Some(Failure::Call(_))), "{found:?}");
        }
        assert_eq!(failed(&found, Check::Integrity), None, "{found:?}");
        Ok(())
    }

    fn loss_behind_redirected_data_is_found(cgroup: &Cgroup) -> Result {
        let sabotaged = Sabotaged::by("lose", cgroup)?;
        let found = selftest::run(&sabotaged.path)?;
        assert!(matches!(failed(&found, Check::Order), Some(Failure::Data(_))), "{found:?}");
        for check in [Check::OneQueue, Check::WayBack, Check::Retire] {
            assert!(failed(&found, check).is_some(), "{found:?}");
        }
        assert_eq!(failed(&found, Check::Integrity), None, "{found:?}");
        Ok(())
    }

    fn connections_that_are_not_enrolled_are_found(_: &Cgroup) -> Result {
        let elsewhere = Cgroup::create(testbed::isolate::TEST_CGROUP)?;
        let found = findings(&elsewhere, options())?;
        assert!(matches!(failed(&found, Check::Redirect), Some(Failure::Call(_))), "{found:?}");
        Ok(())
    }
}
