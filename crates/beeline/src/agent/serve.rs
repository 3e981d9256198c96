//! Answering on the control socket until told to stop.

use std::io::{self, BufReader};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use datapath::Maps;
use datapath::programs::Programs;
use datapath::tidy::Tidy;
use sd_notify::NotifyState;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use tracing::{debug, warn};

use super::adopt;
use super::capture::Gate;
use super::keepalive;
use super::privileges;
use super::reload::{Cause, Live};
use super::socket::{self, ControlSocket};
use super::splice;
use super::trace::Hub;
use crate::config::Watch;
use crate::control::{self, AgentInfo, Request};
use crate::workload::source::{Feed, News};
use crate::workload::tree::Tree;

/// Time between two looks for handshakes that never ended, and sockets whose end was not told.
const TIDY: Duration = Duration::from_secs(30);

/// A handshake takes at most as long as a SYN-ACK is repeated: 63 s with the kernel's defaults
/// (net.ipv4.tcp_synack_retries).
const HANDSHAKE: Duration = Duration::from_secs(120);

/// How long the thread that looks at programs waits for the next one, again and again.
const LISTEN: Duration = Duration::from_secs(60);

/// What requests are answered with.
#[derive(Clone)]
struct Desk {
    hub: Hub,
    stop: Sender<()>,
    live: Arc<Live>,
    gate: Gate,
    page: Option<String>,
}

pub(super) fn run(
    live: Arc<Live>,
    tree: Tree,
    feed: Feed,
    control: ControlSocket,
    page: Option<String>,
) -> Result<()> {
    let (stop, stopped) = mpsc::channel();
    handle_signals(&live, &stop).context("cannot handle signals")?;
    follow_files(&live);
    let instance = live.instance();
    let maps =
        Maps::open(&instance.pins()).context("cannot open the maps that were just pinned")?;
    let maps = Arc::new(maps);
    let (listener, _removed) = control.listen()?;
    let (for_programs, for_workloads, for_adoption) = (maps.clone(), maps.clone(), maps.clone());
    let (for_containers, for_keepalive, for_splices) = (maps.clone(), maps.clone(), maps.clone());
    tell_systemd();
    let hub = Hub::default();
    let desk = Desk {
        hub: hub.clone(),
        stop,
        gate: Gate::new(instance.clone()),
        live: live.clone(),
        page,
    };
    // These end with the process, wherever they are: stopping is no worse than being killed, and a look
    // at all programs of a busy host may take seconds.
    let (looking, following, learning) = (live.clone(), live.clone(), live.clone());
    let adopting = live.clone();
    thread::spawn(move || look_at_programs(&looking, &for_programs));
    thread::spawn(move || follow_workloads(&following, tree, &for_workloads));
    feed.follow(move |source, news| learn(&learning, source, news, &for_containers));
    thread::spawn(move || adopt::run(&adopting, &for_adoption));
    thread::spawn(move || keepalive::run(&for_keepalive));
    thread::spawn(move || splice::run(&for_splices));
    thread::spawn(move || accept(&listener, &desk));
    thread::scope(|scope| {
        scope.spawn(|| hub.run(&maps));
        tidy_until(&stopped, &maps);
        hub.close();
    });
    live.freeze();
    Ok(())
}

/// Two threads: a reload may take a while, and must not keep the agent from stopping.
fn handle_signals(live: &Arc<Live>, stop: &Sender<()>) -> io::Result<()> {
    let mut stopping = Signals::new([SIGINT, SIGTERM])?;
    let mut reloading = Signals::new([SIGHUP])?;
    let (live, stop) = (live.clone(), stop.clone());
    // When nobody receives any more, it is stopping already.
    let stop = move |_| stop.send(()).unwrap_or_default();
    thread::spawn(move || stopping.forever().for_each(stop));
    let reload = move |_| drop(live.reload(Cause::Signal));
    thread::spawn(move || reloading.forever().for_each(reload));
    Ok(())
}

/// Reloads when files have changed, also since they were read at the start.
fn follow_files(live: &Arc<Live>) {
    let unseen = |error| {
        warn!("changes of the configuration's files go unnoticed, `beeline reload` tells: {error}");
    };
    let mut watch = match Watch::of(live.sources()) {
        Ok(watch) => watch,
        Err(error) => return unseen(error),
    };
    live.reload(Cause::Files);
    let live = live.clone();
    thread::spawn(move || {
        loop {
            match watch.wait() {
                Ok(()) => drop(live.reload(Cause::Files)),
                Err(error) => return unseen(error),
            }
        }
    });
}

/// Learns of each program that connects or listens whether it may splice, and which rules concern it.
fn look_at_programs(live: &Live, maps: &Maps) {
    let tell = |program, path: &Path| {
        if let Err(error) = live.rules().see(maps, program, path) {
            let path = path.display();
            warn!("connections of {path} are not enrolled: {error}");
        }
    };
    let look = || -> datapath::Result<()> {
        let config = live.config();
        let programs = Programs::load(maps, |path| config.never_splices(path))?;
        let mut programs = programs.telling(tell);
        // Some may have started between the survey and the attachment.
        programs.survey()?;
        loop {
            programs.poll(LISTEN)?;
        }
    };
    if let Err(error) = look() {
        warn!("connections of new programs are not enrolled: {error}");
    }
}

/// Learns of each cgroup which rules concern it.
fn follow_workloads(live: &Live, mut tree: Tree, maps: &Maps) {
    loop {
        let changes = match tree.poll(LISTEN) {
            Ok(changes) => changes,
            Err(error) => {
                warn!("cgroups cannot be followed any more: {error}");
                return;
            }
        };
        for change in changes {
            if let Err(error) = live.rules().follow(maps, change) {
                warn!("connections of a new cgroup are not enrolled: {error}");
            }
        }
    }
}

/// Learns of containers which rules concern them.
fn learn(live: &Live, source: usize, news: News, maps: &Maps) {
    if let Err(error) = live.rules().learn(maps, source, news) {
        warn!("connections of a container are not judged by what was told of it: {error}");
    }
}

fn tidy_until(stopped: &mpsc::Receiver<()>, maps: &Maps) {
    let unseen = |error| warn!("sockets whose end was not told are not forgotten: {error}");
    let tidy = Tidy::load(maps).map_err(unseen).ok();
    while stopped.recv_timeout(TIDY) == Err(RecvTimeoutError::Timeout) {
        if let Err(error) = maps.expire_offers(HANDSHAKE) {
            warn!("handshakes that never ended are not forgotten: {error}");
        }
        if let Some(Err(error)) = tidy.as_ref().map(Tidy::look) {
            unseen(error);
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
    if let Some(request) = request
        .as_ref()
        .filter(|request| !socket::may_ask(&stream, request))
    {
        return socket::refuse(&mut stream, request);
    }
    match request {
        Some(Request::Info) => control::send(&mut stream, &desk.info()),
        Some(Request::Trace) => desk.hub.follow(&mut stream),
        Some(Request::Stop) => {
            let sent = control::send(&mut stream, &desk.info());
            desk.stop.send(()).unwrap_or_default();
            sent
        }
        Some(Request::Reload) => control::send(&mut stream, &desk.live.reload(Cause::Request)),
        Some(Request::Explain { question }) => {
            control::send(&mut stream, &desk.live.explain(&question))
        }
        Some(Request::Names) => {
            let names = desk.live.rules().look(|host| host.containers.names());
            control::send(&mut stream, &names)
        }
        Some(Request::Capture { bytes }) => desk.gate.capture(&mut stream, bytes),
        None => Ok(()),
    }
}

impl Desk {
    fn info(&self) -> AgentInfo {
        AgentInfo {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            page: self.page.clone(),
            capabilities: privileges::names().unwrap_or_default(),
        }
    }
}
