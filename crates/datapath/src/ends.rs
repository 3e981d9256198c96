//! The enrolled sockets, read from the kernel.

use std::io::{self, ErrorKind, Read};
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{Iter, Object};

use crate::abi::{EndRecord, EndReport, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// A loaded iterator over sockets; list as often as you like.
pub struct Ends(Look);

impl Ends {
    /// Loads the iterator over the sockets of `maps` that are or were enrolled.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        Look::load(maps, "beeline_ends").map(Self)
    }

    /// Loads the iterator over those that wait to be enrolled for the first time, as an end blocks.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn waiting(maps: &Maps) -> Result<Self> {
        Look::load(maps, "beeline_waiting").map(Self)
    }

    /// Every such socket that still exists, in no order. Sockets that come or go
    /// meanwhile may be missing or be there twice.
    ///
    /// # Errors
    /// When the kernel refuses to run the iterator.
    pub fn list(&self, maps: &Maps) -> Result<Vec<EndRecord>> {
        let mut all = Vec::new();
        self.each(maps, |one| all.push(*one))?;
        Ok(all)
    }

    /// Shows each to `see`, which may not look itself, and keeps none: there may be hundreds of thousands.
    ///
    /// # Errors
    /// As [`Ends::list`].
    pub fn each(&self, maps: &Maps, see: impl FnMut(&EndRecord)) -> Result<()> {
        self.0.each(maps, see)
    }
}

/// As [`Ends::load`], each socket with its histograms: two and a half times the bytes.
pub struct Tallied(Look);

impl Tallied {
    /// Loads the iterator over the sockets of `maps` that are or were enrolled.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        Look::load(maps, "beeline_tallied").map(Self)
    }

    /// As [`Ends::each`].
    ///
    /// # Errors
    /// When the kernel refuses to run the iterator.
    pub fn each(&self, maps: &Maps, see: impl FnMut(&EndReport)) -> Result<()> {
        self.0.each(maps, see)
    }
}

/// One of the programs.
struct Look {
    object: Object,
    program: &'static str,
    /// One look at a time: they have one ring buffer.
    looking: Mutex<()>,
}

impl Look {
    fn load(maps: &Maps, program: &'static str) -> Result<Self> {
        let mut open = object::open_sharing(object::ENDS, "ends", maps, &["ends"])?;
        for mut one in open.progs_mut() {
            let chosen = one.name() == program;
            one.set_autoload(chosen);
        }
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterator over sockets"))?;
        Ok(Self {
            object,
            program,
            looking: Mutex::new(()),
        })
    }

    /// Shows each of what the program reports, a `T`.
    fn each<T: Wire>(&self, maps: &Maps, mut see: impl FnMut(&T)) -> Result<()> {
        const WHAT: &str = "the iterator over sockets";
        let _only_one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let reports = object::map(&self.object, "reports");
        let ring = object::ring(&reports, "the ring buffer of reports", |bytes| {
            if let Some(report) = T::read(bytes) {
                see(&report);
            }
        })?;
        let link = object::attach_iterator(&self.object, self.program, Some(maps.get("ends")))?;
        let mut sockets = Iter::new(&link).map_err(Error::bpf("run", WHAT))?;
        loop {
            let state = goes_on(&mut sockets);
            // Also when it failed, or the next look would find what is left.
            ring.consume()
                .map_err(Error::bpf("read", "the ring buffer of reports"))?;
            if !state.map_err(Error::io("read", WHAT))? {
                return Ok(());
            }
        }
    }
}

/// Lets an iterator run until the ring buffer is full; `false` when it has seen everything.
fn goes_on(iterator: &mut Iter) -> io::Result<bool> {
    match iterator.read(&mut [0]) {
        Ok(read) => Ok(read > 0),
        Err(error) if [ErrorKind::WouldBlock, ErrorKind::Interrupted].contains(&error.kind()) => {
            Ok(true)
        }
        Err(error) => Err(error),
    }
}
