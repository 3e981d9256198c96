//! A sock_ops program of somebody else.

use std::fs::File;
use std::net::TcpStream;
use std::os::fd::AsRawFd;

use datapath::abi::EndRecord;
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder};
use testbed::{Cgroup, wait_for};

use super::{Bed, Elf, Result, SOON, set_option, talk};

static OTHER: &Elf<[u8]> = &Elf(*include_bytes!(concat!(env!("OUT_DIR"), "/other.bpf.o")));

pub struct Other {
    object: Object,
    _link: Link,
}

impl Other {
    pub fn on(cgroup: &Cgroup) -> Result<Self> {
        let object = ObjectBuilder::default().open_memory(&OTHER.0)?.load()?;
        let program = object.progs_mut().next().ok_or("it has a program")?;
        let link = program.attach_cgroup(File::open(cgroup.path())?.as_raw_fd())?;
        Ok(Self {
            _link: link,
            object,
        })
    }

    /// For how many acknowledgements it was called, and for how many with all flags that it set.
    fn heard(&self) -> Result<(u64, u64)> {
        let map = self.object.maps().next().ok_or("it has a map")?;
        let of = |place: u32| -> Result<u64> {
            let value = map.lookup(&place.to_ne_bytes(), MapFlags::ANY)?;
            Ok(u64::from_ne_bytes(
                value.ok_or("an array")?.as_slice().try_into()?,
            ))
        };
        Ok((of(0)?, of(1)?))
    }

    /// It is called for what the connection sends, also when that is plain TCP again.
    pub fn hears_what_left(&self, bed: &Bed, a: &TcpStream, b: &TcpStream) -> Result {
        assert_eq!(bed.enrolled().len(), 2);
        for sock in [a, b] {
            set_option(sock, libc::SOL_SOCKET, libc::SO_TIMESTAMP, 1)?;
        }
        wait_for("plain TCP", SOON, || {
            let left = |ends: Vec<EndRecord>| ends.iter().all(|end| end.has_psock == 0);
            talk(a, b).is_ok() && bed.ends().is_ok_and(left)
        })?;
        // The first acknowledgements afterwards may be the last ones that a program of ours hears of.
        talk(a, b)?;
        let before = self.heard()?;
        for _ in 0..10 {
            talk(a, b)?;
        }
        let after = self.heard()?;
        assert!(after.0 >= before.0 + 10, "{before:?}, {after:?}");
        assert_eq!(
            after.0, after.1,
            "what it alone asks for is still asked for"
        );
        Ok(())
    }
}
