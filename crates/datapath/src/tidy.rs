//! Forgetting what is known of sockets that are gone, where the kernel did not tell of their end.

use libbpf_rs::Object;

use crate::maps::Maps;
use crate::{Error, Result, object};

/// The loaded program.
pub struct Tidy(Object);

impl Tidy {
    /// Loads the program for the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn load(maps: &Maps) -> Result<Self> {
        object::open_sharing(object::TIDY, "tidy", maps, &["left", "expected"])?
            .load()
            .map(Self)
            .map_err(Error::bpf("load", "the program that forgets sockets"))
    }

    /// Looks at each of them.
    ///
    /// # Errors
    /// When the kernel refuses to run the program.
    pub fn look(&self) -> Result<()> {
        object::call(&self.0, "beeline_tidy", "the program that forgets sockets").map(drop)
    }
}
