//! Which processes hold TCP sockets.

use std::ffi::CStr;

use crate::abi::{Holder, Wire};
use crate::{Error, Result, object};

/// Every TCP socket that a process holds, once for each of its descriptors. Processes of other namespaces
/// of process ids than ours are there if ours is an outer one.
///
/// # Errors
/// When the kernel refuses the iterator over files: it needs Linux 5.11.
pub fn all() -> Result<Vec<Holder>> {
    const WHAT: &str = "the iterator over files";
    let object = object::open(object::HOLDERS, "holders")?
        .load()
        .map_err(Error::bpf("load", WHAT))?;
    let link = object::attach_iterator(&object, "beeline_holders")?;
    let bytes = object::read(&link, WHAT)?;
    Ok(bytes
        .chunks_exact(size_of::<Holder>())
        .filter_map(Holder::read)
        .collect())
}

impl Holder {
    /// The name of the process, of which the kernel keeps 15 bytes.
    #[must_use]
    pub fn name(&self) -> String {
        let bytes = self.command.map(i8::cast_unsigned);
        let name = CStr::from_bytes_until_nul(&bytes);
        name.map_or_else(
            |_| String::new(),
            |name| name.to_string_lossy().into_owned(),
        )
    }
}
