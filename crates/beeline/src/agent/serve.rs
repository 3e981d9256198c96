//! Answering on the control socket until told to stop.

use std::fs;
use std::io::{self, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use datapath::Maps;
use datapath::adopt::Adopter;
use datapath::programs::Programs;
use sd_notify::NotifyState;
use tracing::{debug, warn};

use super::reload::Live;
use super::trace::Hub;
use crate::config::{Config, Sources};
use crate::control::{self, AgentInfo, Request};
use crate::instance::Instance;

/// Time between two looks for handshakes that never ended.
const TIDY: Duration = Duration::from_secs(30);

/// A handshake takes at most as long as a SYN-ACK is repeated: 63 s with the kernel's defaults
/// (net.ipv4.tcp_synack_retries).
const HANDSHAKE: Duration = Duration::from_secs(120);

/// Least time between two looks for connections that do not block any more; and at most one part in
/// so many of the time is spent looking.
const ADOPT_PERIOD: Duration = Duration::from_millis(50);
const ADOPT_SHARE: u32 = 200;

/// How long the thread that looks at programs waits before it looks whether to stop.
const STOP_PERIOD: Duration = Duration::from_millis(200);

/// A bound control socket, removed on drop.
struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        // Gone already, or the directory is: nothing is left to remove.
        let _ = fs::remove_file(&self.0);
    }
}

/// What requests are answered with.
#[derive(Clone)]
struct Desk {
    hub: Hub,
    stop: Sender<()>,
    live: Arc<Live>,
}

pub(super) fn run(instance: Instance, config: Config, sources: Sources, maps: &Maps) -> Result<()> {
    let (stop, stopped) = mpsc::channel();
    let on_signal = stop.clone();
    // Nobody receives any more: it is stopping already.
    let handler = move || on_signal.send(()).unwrap_or_default();
    ctrlc::set_handler(handler).context("cannot handle signals")?;
    let path = instance.control_socket();
    let listener = listen(&path).with_context(|| format!("cannot listen on {}", path.display()))?;
    let _socket = Socket(path);
    tell_systemd();
    let hub = Hub::default();
    let desk = Desk {
        hub: hub.clone(),
        stop,
        live: Arc::new(Live::new(instance, config.clone(), sources)),
    };
    let stopping = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| hub.run(maps));
        scope.spawn(|| look_at_programs(&config, maps, &stopping));
        scope.spawn(|| adopt(maps, &stopping));
        // Ends with the process: nothing that it does outlives a request.
        thread::spawn(move || accept(&listener, &desk));
        tidy_until(&stopped, maps);
        stopping.store(true, Ordering::Relaxed);
        hub.close();
    });
    Ok(())
}

/// Learns of each program that connects or listens whether it may splice.
fn look_at_programs(config: &Config, maps: &Maps, stopping: &AtomicBool) {
    let looked =
        Programs::load(maps, |path| config.never_splices(path)).and_then(|mut programs| {
            // Some may have started between the survey and the attachment.
            programs.survey()?;
            while !stopping.load(Ordering::Relaxed) {
                programs.poll(STOP_PERIOD)?;
            }
            Ok(())
        });
    if let Err(error) = looked {
        warn!("connections of new programs are not enrolled: {error}");
    }
}

/// Enrols connections whose ends blocked at first.
fn adopt(maps: &Maps, stopping: &AtomicBool) {
    let adopted = Adopter::load(maps).and_then(|adopter| {
        while !stopping.load(Ordering::Relaxed) {
            let begin = Instant::now();
            adopter.look()?;
            let until = Instant::now() + (begin.elapsed() * ADOPT_SHARE).max(ADOPT_PERIOD);
            while Instant::now() < until && !stopping.load(Ordering::Relaxed) {
                thread::sleep(ADOPT_PERIOD);
            }
        }
        Ok(())
    });
    if let Err(error) = adopted {
        warn!("connections that blocked when they were made stay on the kernel path: {error}");
    }
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
            warn!("handshakes that never ended are not forgotten: {error}");
        }
    }
}

/// Does nothing where nobody waits to be told.
fn tell_systemd() {
    if let Err(error) = sd_notify::notify(&[NotifyState::Ready]) {
        warn!("cannot tell systemd that the agent is ready: {error}");
    }
}

fn accept(listener: &UnixListener, desk: &Desk) {
    for stream in listener.incoming().flatten() {
        let desk = desk.clone();
        thread::spawn(move || {
            // A client that hangs up or speaks nonsense hurts only itself.
            let _ = answer(stream, &desk);
        });
    }
}

fn answer(mut stream: UnixStream, desk: &Desk) -> io::Result<()> {
    stream.set_read_timeout(Some(control::PATIENCE))?;
    stream.set_write_timeout(Some(control::PATIENCE))?;
    let request = control::receive(&mut BufReader::new(stream.try_clone()?))?;
    debug!(?request, "asked on the control socket");
    match request {
        Some(Request::Info) => control::send(&mut stream, &info()),
        Some(Request::Trace) => desk.hub.follow(&mut stream),
        Some(Request::Stop) => {
            let sent = control::send(&mut stream, &info());
            desk.stop.send(()).unwrap_or_default();
            sent
        }
        Some(Request::Reload) => control::send(&mut stream, &desk.live.reload()),
        None => Ok(()),
    }
}

fn info() -> AgentInfo {
    AgentInfo {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").into(),
    }
}
