//! The directory in the bpffs where a datapath is pinned, so that it outlives its agent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::maps::SHARED;
use crate::{Error, Result};

/// Where every Linux distribution mounts the bpffs.
pub const BPFFS: &str = "/sys/fs/bpf";

/// The map that is pinned first and unpinned last.
pub(crate) const FIRST: &str = "settings";

/// Names of the pinned attachments to the cgroup: that of sock_ops, which enrols, and the others.
const SOCK_OPS_LINK: &str = "sock_ops_link";
const SETSOCKOPT_LINK: &str = "setsockopt_link";

/// A pin directory. Exists or not; holding the value changes nothing.
#[derive(Debug, Clone)]
pub struct Pins {
    dir: PathBuf,
}

impl Pins {
    /// The pins of the instance `name` under [`BPFFS`].
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self {
            dir: Path::new(BPFFS).join(name),
        }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the map `name` is pinned.
    #[must_use]
    pub fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Where the sock_ops attachment is pinned.
    #[must_use]
    pub fn link(&self) -> PathBuf {
        self.dir.join(SOCK_OPS_LINK)
    }

    /// Where the setsockopt attachment is pinned.
    #[must_use]
    pub fn setsockopt_link(&self) -> PathBuf {
        self.dir.join(SETSOCKOPT_LINK)
    }

    /// Whether a datapath is pinned here, attached or still draining.
    #[must_use]
    pub fn exist(&self) -> bool {
        self.map(FIRST).exists() && !self.are_remainder()
    }

    /// As [`Pins::exist`], for whoever may not have been told: a bpffs is mostly root's alone to look into.
    ///
    /// # Errors
    /// When it is not ours to look into.
    pub(crate) fn are_found(&self) -> Result<bool> {
        match fs::metadata(self.map(FIRST)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Err(Error::bpf("look into", self.dir.display().to_string())(
                    error.into(),
                ))
            }
            _ => Ok(self.exist()),
        }
    }

    /// Whether a first start or a removal was interrupted: nothing is attached, and maps are missing.
    fn are_remainder(&self) -> bool {
        !self.link().exists() && !SHARED.iter().all(|name| self.map(name).exists())
    }

    /// Makes the directory.
    ///
    /// # Errors
    /// When the bpffs is not mounted or not writable.
    pub fn create(&self) -> Result<()> {
        fs::create_dir_all(&self.dir).map_err(Error::io("create", &self.dir))
    }

    /// Removes every pin and the directory. The kernel frees what nobody else holds.
    ///
    /// The attachment goes first and the settings last, so that whoever is interrupted leaves
    /// something that [`crate::socket::SocketPath::load_pinned`] recognises as a remainder.
    ///
    /// # Errors
    /// When a pin cannot be removed; a missing directory is no error.
    pub fn remove(&self) -> Result<()> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(Error::io("read", &self.dir))?,
        };
        let mut paths = entries
            .map(|entry| entry.map(|entry| entry.path()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::io("read", &self.dir))?;
        paths.sort_by_key(|path| (*path == self.map(FIRST), *path != self.link()));
        for path in paths {
            fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        }
        fs::remove_dir(&self.dir).map_err(Error::io("remove", &self.dir))
    }
}

/// Whether a bpffs is mounted at [`BPFFS`].
///
/// # Errors
/// When `/sys/fs/bpf` cannot be asked.
pub fn bpffs_mounted() -> Result<bool> {
    // linux/magic.h: BPF_FS_MAGIC
    const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
    let stat = rustix::fs::statfs(BPFFS).map_err(|e| Error::io("ask", BPFFS)(e.into()))?;
    Ok(u64::try_from(stat.f_type) == Ok(BPF_FS_MAGIC))
}

/// Mounts a bpffs at [`BPFFS`], as systemd does at boot.
///
/// # Errors
/// When the kernel refuses it.
pub fn mount_bpffs() -> Result<()> {
    rustix::mount::mount(
        "bpf",
        BPFFS,
        "bpf",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .map_err(|e| Error::io("mount a bpffs at", BPFFS)(e.into()))
}
