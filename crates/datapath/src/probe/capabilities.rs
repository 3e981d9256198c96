//! What the calling process is allowed to do.

use std::io;

use caps::{CapSet, CapsHashSet};

use crate::{Error, Result};

/// The effective capabilities of the calling thread.
///
/// # Errors
/// When the kernel does not tell.
pub fn capabilities() -> Result<CapsHashSet> {
    caps::read(None, CapSet::Effective)
        .map_err(|error| Error::io("read", "/proc/self/status")(io::Error::other(error)))
}
