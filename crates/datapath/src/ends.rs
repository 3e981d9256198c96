//! The enrolled sockets, read from the kernel.

use std::sync::{Mutex, PoisonError};

use libbpf_rs::Object;

use crate::abi::{Asked, Candidate, EndRecord, EndReport, Side, Wire};
use crate::maps::Maps;
use crate::{Error, Result, object};

/// A loaded program that reports sockets; list as often as you like.
pub struct Ends {
    look: Look,
    never_enrolled: bool,
}

impl Ends {
    /// Loads the program that reports the sockets of `maps` that are or were enrolled.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        Ok(Self {
            look: Look::load(maps)?,
            never_enrolled: false,
        })
    }

    /// Loads it for those that wait to be enrolled for the first time, as an end blocks.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn waiting(maps: &Maps) -> Result<Self> {
        Ok(Self {
            look: Look::load(maps)?,
            never_enrolled: true,
        })
    }

    /// Every such socket that still exists, in no order. Sockets that come or go
    /// meanwhile may be missing or be there twice.
    ///
    /// # Errors
    /// When the kernel refuses to run the program.
    pub fn list(&self, maps: &Maps) -> Result<Vec<EndRecord>> {
        let mut all = Vec::new();
        self.each(maps, |one| all.push(*one))?;
        Ok(all)
    }

    /// Shows each to `see`, which may not look itself, and keeps none: there may be hundreds of thousands.
    ///
    /// # Errors
    /// As [`Ends::list`].
    pub fn each(&self, maps: &Maps, mut see: impl FnMut(&EndRecord)) -> Result<()> {
        let asked = if self.never_enrolled {
            waiting(maps)?
        } else {
            known(maps)?
        };
        self.look.each(&asked, |report| {
            if report.record.end.was_never_enrolled() == self.never_enrolled {
                see(&report.record);
            }
        })
    }
}

/// As [`Ends::load`], each socket with its histograms.
pub struct Tallied(Look);

impl Tallied {
    /// Loads the program that reports the sockets of `maps` that are or were enrolled.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        Look::load(maps).map(Self)
    }

    /// As [`Ends::each`].
    ///
    /// # Errors
    /// When the kernel refuses to run the program.
    pub fn each(&self, maps: &Maps, see: impl FnMut(&EndReport)) -> Result<()> {
        self.0.each(&known(maps)?, see)
    }
}

/// Who is or was enrolled. One that leaves the maps meanwhile is among those that have left.
fn known(maps: &Maps) -> Result<Vec<Asked>> {
    let enrolled = maps.enrolled().into_iter().map(|own| Asked {
        own,
        ..Asked::default()
    });
    let mut all: Vec<Asked> = enrolled.collect();
    all.extend(maps.left()?.into_iter().map(by_side));
    Ok(all)
}

fn waiting(maps: &Maps) -> Result<Vec<Asked>> {
    let both = |one: Candidate| [one.conn.client, one.conn.server];
    let sides = maps.candidates()?.into_iter().flat_map(both);
    Ok(sides.filter(|side| side.sk != 0).map(by_side).collect())
}

fn by_side(side: Side) -> Asked {
    Asked {
        side,
        ..Asked::default()
    }
}

/// The program.
struct Look {
    object: Object,
    /// One look at a time: they have one ring buffer.
    looking: Mutex<()>,
}

impl Look {
    fn load(maps: &Maps) -> Result<Self> {
        const USED: &[&str] = &["ends", "socks", "left"];
        let object = object::open_sharing(object::ENDS, "ends", maps, USED)?
            .load()
            .map_err(Error::bpf("load", "the program that reports sockets"))?;
        Ok(Self {
            object,
            looking: Mutex::new(()),
        })
    }

    /// Shows each of those that are still there.
    fn each(&self, asked: &[Asked], mut see: impl FnMut(&EndReport)) -> Result<()> {
        let _only_one = self.looking.lock().unwrap_or_else(PoisonError::into_inner);
        let reports = object::map(&self.object, "reports");
        let ring = object::ring(&reports, "the ring buffer of reports", |bytes| {
            if let Some(report) = EndReport::read(bytes) {
                see(&report);
            }
        })?;
        for some in asked.chunks(object::PACKET_BYTES.end() / size_of::<Asked>()) {
            let mut bytes: Vec<u8> = some.iter().flat_map(Wire::bytes).copied().collect();
            // What is not an element is asked for in vain.
            bytes.resize(bytes.len().max(*object::PACKET_BYTES.start()), 0);
            object::run(
                &self.object,
                "beeline_ends",
                "the program that reports sockets",
                &bytes,
            )?;
            ring.consume()
                .map_err(Error::bpf("read", "the ring buffer of reports"))?;
        }
        Ok(())
    }
}
