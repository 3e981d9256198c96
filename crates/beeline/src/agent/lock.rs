//! One process at a time changes an instance.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};

use super::runtime_dir;
use crate::instance::Instance;

/// Whoever could open the file could take the lock.
const OWN: u32 = 0o600;

/// Held for as long as this value lives; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock of an instance.
    ///
    /// # Errors
    /// When somebody else holds it; the message says who and what to do.
    pub fn take(instance: &Instance) -> Result<Self> {
        runtime_dir(instance)?;
        let path = instance.lock_file();
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(OWN)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        file.set_permissions(Permissions::from_mode(OWN))
            .with_context(|| format!("cannot close {} to others", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let holder = fs::read_to_string(&path).unwrap_or_default();
            bail!(
                "another beeline (process {}) works with the instance {instance} already: stop it \
                 first (its connections go on), or choose another --instance",
                holder.trim()
            );
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { _file: file })
    }
}
