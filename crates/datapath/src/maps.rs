//! The maps of the socket path: from a loaded object or from their pins.

use std::collections::HashMap;
use std::fs;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use libbpf_rs::{MapCore, MapFlags, MapHandle, Object};

use crate::abi::{
    ABI, Candidate, Handshake, Mode, Offer, Program, Reason, Settings, Side, Totals, Verdict, Wire,
};
use crate::pins::{FIRST, Pins};
use crate::socket::monotonic_ns;
use crate::{Error, Result};

/// Every map that is pinned and shared between versions, in the order of pinning; see
/// [`FIRST`].
pub(crate) const SHARED: [&str; 24] = [
    FIRST,
    "offers",
    "conns",
    "waiting",
    "socks",
    "targets",
    "left",
    "expected",
    "ends",
    "programs",
    "listeners",
    "callers",
    "rules",
    "rule_exact",
    "rule_ranges",
    "rule_options",
    "totals",
    "pairs",
    "free_pairs",
    "hists",
    "events",
    "strangers",
    "captures",
    "uncaptured",
];

const ONLY_KEY: [u8; 4] = [0; 4];

/// The kernel takes all settings at once: who changes one writes back what it read of the others.
static CHANGING: Mutex<()> = Mutex::new(());

/// Handles to the maps; all of Beeline's looking goes through them, agent or not.
#[derive(Debug)]
pub struct Maps {
    by_name: HashMap<&'static str, MapHandle>,
}

impl Maps {
    /// Opens the pinned maps.
    ///
    /// # Errors
    /// [`Error::NotLoaded`] without pins, [`Error::Bpf`] where only root can see any, [`Error::Layout`] when another layout is pinned.
    pub fn open(pins: &Pins) -> Result<Self> {
        if !pins.are_found()? {
            return Err(Error::NotLoaded {
                path: pins.dir().into(),
            });
        }
        let settings = open_pinned(pins, "settings")?;
        let mut by_name = HashMap::from([("settings", settings)]);
        let found = read_settings(&by_name["settings"])?.abi;
        if found != ABI {
            return Err(Error::Layout {
                path: pins.dir().into(),
                found,
                needed: ABI,
            });
        }
        for name in &SHARED[1..] {
            by_name.insert(name, open_pinned(pins, name)?);
        }
        Ok(Self { by_name })
    }

    pub(crate) fn of(object: &Object) -> Result<Self> {
        let mut by_name = HashMap::new();
        for name in SHARED {
            let map = object
                .maps()
                .find(|map| map.name() == name)
                .unwrap_or_else(|| panic!("bpf/lib/maps.h defines {name}"));
            let handle = MapHandle::try_from(&map).map_err(Error::bpf("open the map", name))?;
            by_name.insert(name, handle);
        }
        Ok(Self { by_name })
    }

    /// One of them, by its name in `bpf/lib/maps.h`.
    ///
    /// # Panics
    /// If there is none of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> &MapHandle {
        &self.by_name[name]
    }

    /// Pins those that are not pinned yet.
    pub(crate) fn pin(&mut self, pins: &Pins) -> Result<()> {
        pins.create()?;
        for name in SHARED {
            let path = pins.map(name);
            if !path.exists() {
                let map = self.by_name.get_mut(name).expect("made with every name");
                map.pin(&path)
                    .map_err(Error::bpf("pin the map", path.display().to_string()))?;
            }
        }
        Ok(())
    }

    /// The settings in force.
    ///
    /// # Errors
    /// When the kernel refuses the look-up.
    pub fn settings(&self) -> Result<Settings> {
        read_settings(self.get("settings"))
    }

    /// Changes settings; programs see it with their next message.
    ///
    /// # Errors
    /// When the kernel refuses the update.
    pub fn change(&self, change: impl FnOnce(&mut Settings)) -> Result<()> {
        let _only_one = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut settings = self.settings()?;
        change(&mut settings);
        self.get("settings")
            .update(&ONLY_KEY, settings.bytes(), MapFlags::ANY)
            .map_err(Error::bpf("change", "the settings"))
    }

    /// The mode in force; an unknown one counts as off.
    ///
    /// # Errors
    /// When the kernel refuses the look-up.
    pub fn mode(&self) -> Result<Mode> {
        Ok(Mode::from_raw(self.settings()?.mode).unwrap_or(Mode::Off))
    }

    /// Puts a mode in force.
    ///
    /// # Errors
    /// When the kernel refuses the update.
    pub fn set_mode(&self, mode: Mode) -> Result<()> {
        self.change(|settings| settings.mode = mode as u32)
    }

    /// The sums over all processors.
    ///
    /// # Errors
    /// When the kernel refuses the look-up.
    pub fn totals(&self) -> Result<Totals> {
        let per_cpu = self
            .get("totals")
            .lookup_percpu(&ONLY_KEY, MapFlags::ANY)
            .map_err(Error::bpf("read", "the totals"))?
            .unwrap_or_default();
        let mut sum = Totals::default();
        for one in per_cpu.iter().filter_map(|bytes| Totals::read(bytes)) {
            add(&mut sum, &one);
        }
        Ok(sum)
    }

    /// The enrolled sockets, each by its own view of its handshake.
    #[must_use]
    pub fn enrolled(&self) -> Vec<Handshake> {
        keys(self.get("socks"))
    }

    /// Handshakes that began and did not end yet.
    #[must_use]
    pub fn offers(&self) -> Vec<Handshake> {
        keys(self.get("offers"))
    }

    /// Enrolled connections, by the client's view.
    #[must_use]
    pub fn conns(&self) -> Vec<Handshake> {
        keys(self.get("conns"))
    }

    /// Connections that wait until neither end blocks, by the client's view.
    #[must_use]
    pub fn waiting(&self) -> Vec<Handshake> {
        keys(self.get("waiting"))
    }

    /// Those that wait, as they are known.
    ///
    /// # Errors
    /// When the kernel refuses the look-ups.
    pub(crate) fn candidates(&self) -> Result<Vec<Candidate>> {
        let all = elements(self.get("waiting"), "the map waiting")?;
        Ok(all
            .filter_map(|(_, value)| Candidate::read(&value))
            .collect())
    }

    /// Where the sockets are that have left the maps.
    ///
    /// # Errors
    /// When the kernel refuses the look-ups.
    pub(crate) fn left(&self) -> Result<Vec<Side>> {
        let number = |bytes: Vec<u8>| Some(u64::from_ne_bytes(bytes.try_into().ok()?));
        let side = |(cookie, sk)| {
            Some(Side {
                sk: number(sk)?,
                cookie: number(cookie)?,
            })
        };
        Ok(elements(self.get("left"), "the map left")?
            .filter_map(side)
            .collect())
    }

    /// Says that the rules in force let these connections pass, each by the client's view, if they still
    /// wait: they may be adopted then. Others that wait since before these rules may not.
    ///
    /// # Errors
    /// When the kernel refuses a look-up or an update.
    pub fn let_pass(&self, waiting: &[Handshake]) -> Result<()> {
        const WHAT: &str = "the map waiting";
        let (map, generation) = (self.get("waiting"), self.settings()?.generation);
        for client in waiting {
            let found = map
                .lookup(client.bytes(), MapFlags::ANY)
                .map_err(Error::bpf("read", WHAT))?;
            let Some(mut candidate) = found.and_then(|bytes| Candidate::read(&bytes)) else {
                continue;
            };
            candidate.generation = generation;
            // What BPF writes meanwhile, the server's end, may be lost: such a one is not adopted.
            match map.update(client.bytes(), candidate.bytes(), MapFlags::EXIST) {
                Err(error) if error.kind() != libbpf_rs::ErrorKind::NotFound => {
                    return Err(Error::bpf("change", WHAT)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// How many sockets the map can hold.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn capacity(&self) -> Result<u32> {
        let info = self
            .get("socks")
            .info()
            .map_err(Error::bpf("ask", "the map socks"))?;
        Ok(info.info.max_entries)
    }

    /// Forgets handshakes that began longer than `age` ago; they will not end any more.
    ///
    /// # Errors
    /// When the kernel refuses a look-up or a removal.
    pub fn expire_offers(&self, age: Duration) -> Result<()> {
        let offers = self.get("offers");
        let age = u64::try_from(age.as_nanos()).unwrap_or(u64::MAX);
        let limit = monotonic_ns().saturating_sub(age);
        for own in keys(offers) {
            let found = offers
                .lookup(own.bytes(), MapFlags::ANY)
                .map_err(Error::bpf("read", "the map offers"))?;
            if found
                .and_then(|b| Offer::read(&b))
                .is_some_and(|offer| offer.made_ns < limit)
            {
                remove(offers, own, "the map offers")?;
            }
        }
        Ok(())
    }

    /// What is known of a program.
    ///
    /// # Errors
    /// When the kernel refuses the look-up.
    pub fn verdict(&self, program: Program) -> Result<Verdict> {
        let found = self
            .get("programs")
            .lookup(program.bytes(), MapFlags::ANY)
            .map_err(Error::bpf("read", "the map programs"))?;
        let raw = found.and_then(|bytes| Some(u32::from_ne_bytes(bytes.try_into().ok()?)));
        Ok(raw.and_then(Verdict::from_raw).unwrap_or(Verdict::Unknown))
    }

    /// Says what is known of a program; holds for handshakes that begin from now on.
    ///
    /// # Errors
    /// When the kernel refuses the update.
    pub fn set_verdict(&self, program: Program, verdict: Verdict) -> Result<()> {
        self.get("programs")
            .update(
                program.bytes(),
                &(verdict as u32).to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(Error::bpf("change", "the map programs"))
    }

    /// Lets nothing more be redirected to these sockets, nor enrol those that wait. Returns how many
    /// of them were targets; messages whose verdict is older may still be on their way.
    pub(crate) fn stop_targeting(&self, sockets: impl Iterator<Item = Handshake>) -> Result<usize> {
        let mut were = 0;
        for own in sockets {
            were += usize::from(remove(self.get("targets"), own, "the map targets")?);
            remove(self.get("waiting"), own, "the map waiting")?;
        }
        Ok(were)
    }

    /// The sockets that messages may be redirected to.
    pub(crate) fn targets(&self) -> Vec<Handshake> {
        keys(self.get("targets"))
    }

    /// Takes a socket out of the maps; `false` when it was not enrolled any more.
    ///
    /// Data in its psock queue would be lost: only [`crate::drain`] may know that there is none.
    pub(crate) fn release(&self, own: Handshake) -> Result<bool> {
        remove(self.get("targets"), own, "the map targets")?;
        remove(self.get("socks"), own, "the map socks")
    }
}

/// How large a map is.
#[derive(Debug, Clone)]
pub struct Size {
    /// Its name.
    pub name: &'static str,
    /// Its elements, where they come and go and are not counted as sockets or connections.
    pub entries: Option<u64>,
    /// Elements that it can have.
    pub limit: u32,
    /// Bytes that the kernel charges for it.
    pub memory: u64,
}

/// Maps whose elements come and go. Those of sockets and connections are counted elsewhere, and
/// counting takes a call for each element.
const COUNTED: [&str; 5] = ["offers", "waiting", "programs", "listeners", "pairs"];

impl Maps {
    /// How large each map is.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn sizes(&self) -> Result<Vec<Size>> {
        let sizes = SHARED.map(|name| {
            let map = self.get(name);
            let info = map.info().map_err(Error::bpf("ask", name))?;
            let entries = COUNTED.contains(&name).then(|| map.keys().count() as u64);
            let (limit, memory) = (info.info.max_entries, charged(map)?);
            Ok(Size {
                name,
                entries,
                limit,
                memory,
            })
        });
        sizes.into_iter().collect()
    }
}

/// `memlock` in fdinfo (kernel/bpf/syscall.c, bpf_map_show_fdinfo).
fn charged(map: &MapHandle) -> Result<u64> {
    let path = format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd());
    let text = fs::read_to_string(&path).map_err(Error::io("read", &path))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    Ok(line
        .and_then(|bytes| bytes.trim().parse().ok())
        .unwrap_or(0))
}

impl Totals {
    /// How often something was left on, or moved to, the kernel path for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.reasons[reason as usize]
    }
}

fn open_pinned(pins: &Pins, name: &str) -> Result<MapHandle> {
    let path = pins.map(name);
    MapHandle::from_pinned_path(&path).map_err(Error::bpf("open", path.display().to_string()))
}

fn read_settings(map: &MapHandle) -> Result<Settings> {
    let bytes = map
        .lookup(&ONLY_KEY, MapFlags::ANY)
        .map_err(Error::bpf("read", "the settings"))?
        .unwrap_or_default();
    Ok(Settings::read(&bytes).unwrap_or_default())
}

/// `false` when there was no such key.
fn remove(map: &MapHandle, key: Handshake, what: &str) -> Result<bool> {
    match map.delete(key.bytes()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == libbpf_rs::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::bpf("remove an element of", what)(error)),
    }
}

fn keys(map: &MapHandle) -> Vec<Handshake> {
    map.keys().filter_map(|key| Handshake::read(&key)).collect()
}

/// Elements that are looked up with one call, at least as many as can be in one bucket of a hash.
const BATCH: u32 = 4096;

/// The keys and values of a hash.
fn elements<'a>(
    map: &'a MapHandle,
    what: &str,
) -> Result<impl Iterator<Item = (Vec<u8>, Vec<u8>)> + 'a> {
    map.lookup_batch(BATCH, MapFlags::ANY, MapFlags::ANY)
        .map_err(Error::bpf("read", what))
}

fn add(sum: &mut Totals, one: &Totals) {
    sum.enrolled += one.enrolled;
    sum.paired += one.paired;
    sum.closed += one.closed;
    sum.closed_redirected_bytes += one.closed_redirected_bytes;
    sum.closed_redirected_msgs += one.closed_redirected_msgs;
    sum.closed_kernel_bytes += one.closed_kernel_bytes;
    sum.lost_events += one.lost_events;
    sum.lost_pieces += one.lost_pieces;
    sum.lost_bytes += one.lost_bytes;
    for (sum, one) in sum.reasons.iter_mut().zip(one.reasons) {
        *sum += one;
    }
}
