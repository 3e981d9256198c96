//! The socket path as one thing: load, attach, take over.

use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use libbpf_rs::{Link, Object, OpenObject, ProgramMut};

use crate::abi::{ABI, Mode, Verdict};
use crate::hist::Kept;
use crate::maps::{Maps, SHARED};
use crate::pins::Pins;
use crate::programs::Programs;
use crate::{Error, Result, attach, capture, object};

/// What may be chosen before the maps are made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Connections that may be enrolled at once; a map size.
    pub connections: u32,
    /// Bytes that may wait unread at one reader before its sender is left to the kernel path.
    pub queue_limit: u32,
    /// Pages of TCP memory that may be in use on the whole host before every sender is left to the
    /// kernel path; see [`memory_limit`].
    pub memory_limit: u64,
    /// Which histograms are kept.
    pub histograms: Kept,
}

/// Three quarters of what the kernel lets TCP use without a thought: the first number of
/// `net.ipv4.tcp_mem`, in pages.
#[must_use]
pub fn memory_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_mem").unwrap_or_default();
    let low: Option<u64> = text
        .split_whitespace()
        .next()
        .and_then(|pages| pages.parse().ok());
    low.map_or(u64::MAX, |pages| pages / 4 * 3)
}

impl Default for Options {
    fn default() -> Self {
        Self {
            connections: 65_536,
            queue_limit: 4 << 20,
            memory_limit: memory_limit(),
            histograms: Kept::default(),
        }
    }
}

/// What is loaded, in words.
const WHAT: &str = "the socket path";

/// A loaded socket path. Dropping it without pins takes it off; with pins it stays.
pub struct SocketPath {
    object: Object,
    setsockopt: Object,
    maps: Maps,
    links: Vec<Link>,
}

impl SocketPath {
    /// Loads programs and maps of their own; attached to nothing.
    ///
    /// # Errors
    /// When the kernel refuses; the verifier's words are in the message's source.
    pub fn load(options: Options) -> Result<Self> {
        Self::finish(Self::sized(options)?, options)
    }

    /// Loads programs over the maps that are pinned, or over new ones, which are pinned then.
    ///
    /// # Errors
    /// [`Error::Layout`] when pinned maps have another layout; else when the kernel refuses.
    pub fn load_pinned(options: Options, pins: &Pins) -> Result<Self> {
        let mut open = Self::sized(options)?;
        let found = match Maps::open(pins) {
            Ok(maps) => Some(maps),
            Err(Error::NotLoaded { .. }) => {
                pins.remove()?;
                None
            }
            Err(error) => return Err(error),
        };
        if let Some(maps) = &found {
            for name in SHARED {
                object::share(&mut open, name, maps.get(name))?;
            }
        }
        let mut path = Self::finish(open, options)?;
        path.maps.pin(pins)?;
        Ok(path)
    }

    fn sized(options: Options) -> Result<OpenObject> {
        let mut open = object::open(object::SOCKET, "socket")?;
        let sizes = [
            ("conns", options.connections),
            ("socks", options.connections.saturating_mul(2)),
            ("targets", options.connections.saturating_mul(2)),
            ("left", options.connections.saturating_mul(2)),
            ("expected", options.connections.saturating_mul(2)),
        ];
        for (name, entries) in sizes {
            let mut map = open
                .maps_mut()
                .find(|map| map.name() == name)
                .expect("defined in maps.h");
            map.set_max_entries(entries)
                .map_err(Error::bpf("size the map", name))?;
        }
        Ok(open)
    }

    /// The programs and maps alone, of which no setting is made.
    pub(crate) fn object(options: Options) -> Result<Object> {
        Self::sized(options)?
            .load()
            .map_err(Error::bpf("load", WHAT))
    }

    fn finish(open: OpenObject, options: Options) -> Result<Self> {
        let object = open.load().map_err(Error::bpf("load", WHAT))?;
        let maps = Maps::of(&object)?;
        if maps.settings()?.abi == 0 {
            maps.free_all_pairs()?;
        }
        maps.change(|settings| {
            settings.abi = ABI;
            settings.queue_limit = options.queue_limit;
            settings.memory_limit = options.memory_limit;
            settings.histograms = options.histograms.bits();
        })?;
        vouch(&maps)?;
        let setsockopt = object::open_sharing(
            object::SETSOCKOPT,
            "setsockopt",
            &maps,
            &["ends", "programs"],
        )?
        .load()
        .map_err(Error::bpf("load", "what hears of options"))?;
        Ok(Self {
            object,
            setsockopt,
            maps,
            links: Vec::new(),
        })
    }

    /// Attaches to a cgroup; lasts as long as this value.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach(&mut self, cgroup: &Path) -> Result<()> {
        self.start()?;
        let attach = |program| attach::to_cgroup(program, cgroup);
        let links = self
            .of_the_cgroup()
            .iter()
            .map(attach)
            .collect::<Result<_>>()?;
        self.links = links;
        Ok(())
    }

    /// Attaches to a cgroup for good, in the place of an attachment that is pinned already.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach_pinned(&mut self, cgroup: &Path, pins: &Pins) -> Result<()> {
        self.start()?;
        let paths = [pins.setsockopt_link(), pins.link()];
        let programs = self.of_the_cgroup();
        let both = programs.iter().zip(&paths);
        let links = both
            .map(|(program, path)| attach::to_cgroup_pinned(program, cgroup, path))
            .collect::<Result<_>>()?;
        self.links = links;
        Ok(())
    }

    /// Takes off the attachment of [`SocketPath::attach`]; enrolled connections go on.
    pub fn detach(&mut self) {
        self.links.clear();
    }

    /// The maps.
    #[must_use]
    pub fn maps(&self) -> &Maps {
        &self.maps
    }

    /// Sockets that enrol from now on run these programs; earlier ones keep theirs, which is why
    /// the layout of the maps must not change under them.
    fn start(&mut self) -> Result<()> {
        let socks = self.maps.get("socks").as_fd().as_raw_fd();
        for program in ["beeline_stream_verdict", "beeline_sk_msg"] {
            self.program(program)
                .attach_sockmap(socks)
                .map_err(Error::bpf("attach to the map socks", program))?;
        }
        Programs::load(&self.maps, |_| false)?.note_listeners()?;
        capture::clear(&self.maps)?;
        let now = boot_time_ns();
        self.maps.change(|settings| {
            settings.mode = Mode::On as u32;
            // Whoever read events before is gone.
            settings.tracing = 0;
            settings.capture = 0;
            if settings.attached_ns == 0 {
                settings.attached_ns = now;
            }
        })
    }

    /// What is attached to the cgroup, in that order: sock_ops, which enrols, comes last.
    fn of_the_cgroup(&self) -> [ProgramMut<'_>; 2] {
        [
            object::program(&self.setsockopt, "beeline_setsockopt"),
            self.program("beeline_sock_ops"),
        ]
    }

    fn program(&self, name: &str) -> ProgramMut<'_> {
        object::program(&self.object, name)
    }
}

/// Whoever loads the socket path into the kernel does not splice from sockets in it: the agent, its
/// self-test, the demo, the tests.
fn vouch(maps: &Maps) -> Result<()> {
    let programs = Programs::load(maps, |_| true)?;
    if let Some(own) = programs.of(std::process::id())? {
        maps.set_verdict(own, Verdict::NeverSplices)?;
    }
    Ok(())
}

/// Nanoseconds since boot, sleep included, as `settings.attached_ns` counts them.
#[must_use]
pub fn boot_time_ns() -> u64 {
    clock_ns(rustix::time::ClockId::Boottime)
}

/// Nanoseconds as `bpf_ktime_get_ns` counts them.
#[must_use]
pub fn monotonic_ns() -> u64 {
    clock_ns(rustix::time::ClockId::Monotonic)
}

fn clock_ns(clock: rustix::time::ClockId) -> u64 {
    let now = rustix::time::clock_gettime(clock);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap_or(0)
}
