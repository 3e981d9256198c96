//! Whether this kernel takes the iterators beside the programs of the socket path.

use std::collections::HashSet;

use super::attempt::{Attempt, attempt};
use crate::abi::Reason;
use crate::adopt::Adopter;
use crate::earlier::Earlier;
use crate::keepalive::Keepalive;
use crate::maps::Maps;
use crate::marks::Marks;
use crate::programs::Programs;
use crate::quiesce::Quiesce;
use crate::release::Release;
use crate::tidy::Tidy;
use crate::{Error, Result, holders, object};

/// An object of iterators, or of a program that is run like one; `bpf/<name>.bpf.c`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Iterators {
    /// Over processes and their listeners.
    Programs,
    /// Over the files of processes.
    Holders,
    /// Tells sockets to redirect no more.
    Retire,
    /// Takes sockets out of the maps.
    Release,
    /// Enrols live connections.
    Adopt,
    /// Finds connections from before the attachment.
    Earlier,
    /// Keeps connection tracking from forgetting.
    Keepalive,
    /// Over threads that are awake.
    Threads,
    /// Forgets sockets that are gone.
    Tidy,
}

impl Iterators {
    /// All of them, but for the one that reports enrolled sockets, which [`super::socket_path`] runs.
    pub const ALL: [Self; 9] = [
        Self::Programs,
        Self::Holders,
        Self::Retire,
        Self::Release,
        Self::Adopt,
        Self::Earlier,
        Self::Keepalive,
        Self::Threads,
        Self::Tidy,
    ];

    /// The name of the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Programs => "programs",
            Self::Holders => "holders",
            Self::Retire => "retire",
            Self::Release => "release",
            Self::Adopt => "adopt",
            Self::Earlier => "earlier",
            Self::Keepalive => "keepalive",
            Self::Threads => "threads",
            Self::Tidy => "tidy",
        }
    }

    fn load(self, maps: &Maps) -> Result<()> {
        match self {
            Self::Programs => Programs::load(maps, |_| false).map(drop),
            Self::Holders => holders::all().map(drop),
            Self::Retire => Marks::load(maps, &HashSet::new(), Reason::Retired).map(drop),
            Self::Release => Release::load(maps, 1).map(drop),
            Self::Adopt => Adopter::load(maps).map(drop),
            Self::Earlier => Earlier::load(maps).map(drop),
            Self::Keepalive => Keepalive::load(maps).map(drop),
            Self::Threads => Quiesce::begin().map(drop),
            Self::Tidy => Tidy::load(maps).map(drop),
        }
    }
}

/// Loads each, over maps that nobody uses, and lets it go. Whether the kernel takes the programs of the
/// socket path makes no difference.
///
/// # Errors
/// When the kernel refuses the maps, or something else failed than its consent.
pub fn iterators() -> Result<Vec<(Iterators, Attempt)>> {
    let maps = maps()?;
    let each = Iterators::ALL.iter();
    each.map(|one| Ok((*one, attempt(|| one.load(&maps))?)))
        .collect()
}

/// The maps of the socket path without its programs.
fn maps() -> Result<Maps> {
    let mut open = object::open(object::SOCKET, "socket")?;
    for mut program in open.progs_mut() {
        program.set_autoload(false);
    }
    let object = open.load().map_err(Error::bpf("make", "the maps"))?;
    Maps::of(&object)
}
