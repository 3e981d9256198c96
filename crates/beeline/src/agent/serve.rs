//! Answering on the control socket until told to stop.

use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use datapath::Maps;

use super::trace::Hub;
use crate::control::{self, AgentInfo, Request};
use crate::instance::Instance;

/// Time between two looks for handshakes that never ended.
const TIDY: Duration = Duration::from_secs(30);

/// A handshake takes at most as long as a SYN-ACK is repeated: 63 s with the kernel's defaults
/// (net.ipv4.tcp_synack_retries).
const HANDSHAKE: Duration = Duration::from_secs(120);

/// A bound control socket, removed on drop.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already, or the directory is: nothing is left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

pub(super) fn run(instance: &Instance, maps: &Maps) -> Result<()> {
    let (stop, stopped) = mpsc::channel();
    let on_signal = stop.clone();
    // Nobody receives any more: it is stopping already.
    let handler = move || on_signal.send(()).unwrap_or_default();
    ctrlc::set_handler(handler).context("cannot handle signals")?;
    let path = instance.control_socket();
    let listener = listen(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let _socket = Socket(path);
    let hub = Hub::default();
    thread::scope(|scope| {
        scope.spawn(|| hub.run(maps));
        // Ends with the process: nothing that it does outlives a request.
        let (hub_for_clients, stop) = (hub.clone(), stop.clone());
        thread::spawn(move || accept(&listener, &hub_for_clients, &stop));
        tidy_until(&stopped, maps);
        hub.close();
    });
    Ok(())
}

/// Only root may connect.
fn listen(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

fn tidy_until(stopped: &mpsc::Receiver<()>, maps: &Maps) {
    while stopped.recv_timeout(TIDY) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = maps.expire_offers(HANDSHAKE) {
            eprintln!("warning: {error}");
        }
    }
}

fn accept(listener: &UnixListener, hub: &Hub, stop: &Sender<()>) {
    for stream in listener.incoming().flatten() {
        let (hub, stop) = (hub.clone(), stop.clone());
        thread::spawn(move || {
            // A client that hangs up or speaks nonsense hurts only itself.
            let _ = answer(stream, &hub, &stop);
        });
    }
}

fn answer(mut stream: UnixStream, hub: &Hub, stop: &Sender<()>) -> io::Result<()> {
    stream.set_read_timeout(Some(control::PATIENCE))?;
    stream.set_write_timeout(Some(control::PATIENCE))?;
    let request = control::receive(&mut BufReader::new(stream.try_clone()?))?;
    match request {
        Some(Request::Info) => control::send(&mut stream, &info()),
        Some(Request::Trace) => hub.follow(&mut stream),
        Some(Request::Stop) => {
            let sent = control::send(&mut stream, &info());
            stop.send(()).unwrap_or_default();
            sent
        }
        None => Ok(()),
    }
}

fn info() -> AgentInfo {
    AgentInfo {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
