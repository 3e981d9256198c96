//! The agent: loads the datapath and serves those who want to look; never in the data path.

mod adopt;
mod capture;
mod explain;
mod http;
mod keepalive;
mod lock;
pub mod log;
pub mod privileges;
mod reload;
mod rules;
mod serve;
mod socket;
mod splice;
mod trace;

use std::fs::{self, DirBuilder};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use datapath::pins::{self, Pins};
use datapath::programs::Programs;
use datapath::socket::{Options, SocketPath};
use tracing::warn;

use crate::config::{Cgroup, Config, Listen, Origin, Sources};
use crate::instance::Instance;
use crate::policy::Policy;
use crate::selftest::{self, Report};

use crate::workload::docker::Docker;
use crate::workload::source::{Feed, Source};
use crate::workload::tree::Tree;

pub use lock::Lock;

use reload::Live;
use rules::{Host, Rules};
use socket::ControlSocket;

/// How long each source is waited for at the start. What it tells later is known later.
const FIRST_NEWS: Duration = Duration::from_secs(3);

/// A loaded and attached datapath that this process looks after.
pub struct Agent {
    instance: Instance,
    started: Started,
    http: Option<http::Server>,
    config: Config,
    sources: Sources,
    rules: Rules,
    tree: Tree,
    control: ControlSocket,
    feed: Feed,
    _lock: Lock,
}

/// What starting found and did.
#[derive(Debug, Clone)]
pub struct Started {
    /// The covered cgroup.
    pub cgroup: PathBuf,
    /// Sockets that were enrolled already: the datapath was taken over.
    pub taken_over: Option<usize>,
    /// A bpffs was mounted for it.
    pub mounted_bpffs: bool,
    /// Where metrics and the page are served.
    pub http: Option<SocketAddr>,
    /// What it was loaded with. A datapath that is taken over keeps its map sizes.
    pub options: Options,
    /// What it found out about itself before.
    pub self_test: Report,
}

impl Started {
    /// Where a browser on this host finds the page.
    #[must_use]
    pub fn page(&self) -> Option<String> {
        let reached = |addr: SocketAddr| match addr.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => (Ipv4Addr::LOCALHOST, addr.port()).into(),
            IpAddr::V6(ip) if ip.is_unspecified() => (Ipv6Addr::LOCALHOST, addr.port()).into(),
            _ => addr,
        };
        self.http.map(|addr| format!("http://{}/", reached(addr)))
    }
}

impl Agent {
    /// Loads and attaches, or takes over; on failure nothing new stays behind. Then gives up what only
    /// starting takes, for the calling thread and those that it starts; there must be no others.
    ///
    /// # Errors
    /// Each says what was tried, on what, and what to do.
    pub fn start(instance: &Instance, sources: &Sources) -> Result<Self> {
        let config = sources.load()?;
        check_host()?;
        let lock = Lock::take(instance)?;
        let cgroup = covered_cgroup(&config)?;
        let http = http_server(&config)?;
        let feed = Feed::of(sources_of_names(&config));
        let self_test = tried(instance)?;
        let mounted_bpffs = ensure_bpffs()?;
        let pins = instance.pins();
        let was_loaded = pins.exist();
        let options = config.options();
        let control = ControlSocket::bind(instance, &config.group.value)?;
        let tree = Tree::open(&testbed::cgroup2_mount()?, &cgroup)
            .with_context(|| format!("cannot watch the cgroup {}", cgroup.display()))?;
        let host = Host {
            cgroups: tree.cgroups(),
            containers: feed.first(FIRST_NEWS),
        };
        let (path, rules) = load(options, &config, &cgroup, host, &pins).inspect_err(|_| {
            if !was_loaded {
                // The first error is the one to tell.
                let _ = pins.remove();
            }
        })?;
        let taken_over = was_loaded.then(|| path.maps().enrolled().len());
        let started = Started {
            cgroup,
            taken_over,
            mounted_bpffs,
            http: http.as_ref().map(http::Server::addr),
            options,
            self_test,
        };
        privileges::give_up()?;
        Ok(Self {
            instance: instance.clone(),
            started,
            http,
            config,
            sources: sources.clone(),
            rules,
            tree,
            control,
            feed,
            _lock: lock,
        })
    }

    /// What starting found and did.
    #[must_use]
    pub fn started(&self) -> &Started {
        &self.started
    }

    /// Serves until SIGTERM, SIGINT or a stop request; the datapath stays.
    ///
    /// # Errors
    /// When the control socket cannot be made.
    pub fn serve(self) -> Result<()> {
        if let Some(http) = self.http {
            http.serve(self.instance.clone());
        }
        let page = self.started.page();
        let live = Live::new(self.instance, self.config, self.sources, self.rules);
        serve::run(Arc::new(live), self.tree, self.feed, self.control, page)
    }
}

/// Who is asked for names and labels of containers.
fn sources_of_names(config: &Config) -> Vec<Box<dyn Source>> {
    let sockets = config.sockets.value.0.iter();
    sockets
        .map(|socket| Box::new(Docker::at(socket.clone())) as Box<dyn Source>)
        .collect()
}

/// The address that nobody chose may be taken, by another instance for example.
fn http_server(config: &Config) -> Result<Option<http::Server>> {
    let Listen::At(addr) = config.listen.value else {
        return Ok(None);
    };
    let server = http::Server::bind(addr);
    if config.listen.origin != Origin::Default {
        return server.map(Some);
    }
    Ok(server
        .inspect_err(|error| warn!("no metrics and no page: {error:#}"))
        .ok())
}

/// Runs the self-test, and refuses to go on where programs would notice.
fn tried(instance: &Instance) -> Result<Report> {
    let report = selftest::run()?;
    report.keep(instance)?;
    if let Some(failed) = report.obstacle() {
        bail!(
            "the self-test failed, so nothing was attached: {}: {}: {} on this kernel; please \
             report this with the output of `beeline doctor --json`",
            failed.check,
            failed.found,
            failed.meaning
        );
    }
    Ok(report)
}

fn load(
    options: Options,
    config: &Config,
    cgroup: &Path,
    host: Host,
    pins: &Pins,
) -> datapath::Result<(SocketPath, Rules)> {
    let mut path = SocketPath::load_pinned(options, pins)?;
    // Before it is attached, so that what runs already is known when it connects.
    Programs::load(path.maps(), |path| config.never_splices(path))?.survey()?;
    let rules = Rules::put_in_force(path.maps(), Policy::of(config), host)?;
    path.attach_pinned(cgroup, pins)?;
    // Of a datapath that was taken over.
    rules.judge_anew(path.maps())?;
    Ok((path, rules))
}

/// What no later message would name as well.
fn check_host() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("loading BPF programs needs root: run it with sudo");
    }
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no BTF (/sys/kernel/btf/vmlinux is missing): Beeline needs a kernel \
             built with CONFIG_DEBUG_INFO_BTF, as distributions' kernels are; see `beeline doctor`"
        );
    }
    Ok(())
}

fn covered_cgroup(config: &Config) -> Result<PathBuf> {
    let mount =
        testbed::cgroup2_mount().context("no cgroup2 to attach to; see `beeline doctor`")?;
    let Cgroup::Dir(asked) = &config.cgroup.value else {
        return Ok(mount);
    };
    let origin = &config.cgroup.origin;
    let asked = fs::canonicalize(asked)
        .with_context(|| format!("cannot use the cgroup {} of {origin}", asked.display()))?;
    if !asked.starts_with(&mount) {
        bail!(
            "{} of {origin} is not in the cgroup2 hierarchy: name a directory under {}",
            asked.display(),
            mount.display()
        );
    }
    Ok(asked)
}

fn ensure_bpffs() -> Result<bool> {
    if pins::bpffs_mounted()? {
        return Ok(false);
    }
    pins::mount_bpffs().context("pinning needs a bpffs; see `beeline doctor`")?;
    Ok(true)
}

/// Makes the directory of an instance's files, open to root alone.
fn runtime_dir(instance: &Instance) -> Result<PathBuf> {
    let dir = instance.runtime_dir();
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("cannot create {}", dir.display()))?;
    Ok(dir)
}
