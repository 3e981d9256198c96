//! The control socket, and who may ask for what.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use tracing::debug;

use super::runtime_dir;
use crate::config::Group;
use crate::control::{self, Capturing, Reloaded, Request};
use crate::instance::Instance;

const ROOT: u32 = 0;

/// Clients that may wait to be answered.
const BACKLOG: i32 = 128;

/// The bound control socket; nobody can connect yet. Removed on drop.
pub(super) struct ControlSocket {
    socket: OwnedFd,
    file: Removed,
}

/// A file that is removed on drop.
pub(super) struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        // Gone already, or the directory is: nothing is left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

impl ControlSocket {
    /// Binds the control socket of an instance, for root and a group.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn bind(instance: &Instance, group: &Group) -> Result<Self> {
        let (dir, path) = (runtime_dir(instance)?, instance.control_socket());
        let socket =
            bind(&path).with_context(|| format!("cannot make the socket {}", path.display()))?;
        let (id, dir_mode, mode) = match group {
            Group::Root => (ROOT, 0o700, 0o600),
            // Members pass the directory, and see nothing else in it.
            Group::Named { id, .. } => (*id, 0o710, 0o660),
        };
        give(&dir, id, dir_mode)?;
        give(&path, id, mode)?;
        let file = Removed(path);
        Ok(Self { socket, file })
    }

    /// Lets clients connect. The file is removed with the second value.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn listen(self) -> Result<(UnixListener, Removed)> {
        net::listen(&self.socket, BACKLOG)
            .with_context(|| format!("cannot listen on {}", self.file.0.display()))?;
        Ok((self.socket.into(), self.file))
    }
}

fn bind(path: &Path) -> io::Result<OwnedFd> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let (flags, addr) = (SocketFlags::CLOEXEC, SocketAddrUnix::new(path)?);
    let socket = net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    net::bind(&socket, &addr)?;
    Ok(socket)
}

fn give(path: &Path, group: u32, mode: u32) -> Result<()> {
    chown(path, Some(ROOT), Some(group))
        .and_then(|()| fs::set_permissions(path, Permissions::from_mode(mode)))
        .with_context(|| format!("cannot set who may use {}", path.display()))
}

/// Whether the other side may ask for this.
pub(super) fn may_ask(stream: &UnixStream, request: &Request) -> bool {
    request.changes_nothing() || socket_peercred(stream).is_ok_and(|peer| peer.uid.is_root())
}

/// Tells who may not.
pub(super) fn refuse(stream: &mut UnixStream, request: &Request) -> io::Result<()> {
    let why = || "only root may ask for this: the group may ask what happens, no more".to_owned();
    debug!(?request, "refused: who asks is not root");
    match request {
        Request::Reload => control::send(stream, &Reloaded::Refused { why: why() }),
        Request::Capture { .. } => control::send(stream, &Capturing::Refused { why: why() }),
        _ => Ok(()),
    }
}
