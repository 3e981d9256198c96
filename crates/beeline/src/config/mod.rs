//! The configuration: TOML files, every setting optional, every mistake told with its place.
//!
//! The list below is the only one of settings: fields, keys, documentation, defaults, examples and
//! `beeline config` follow from it. Rules are read by `rules.rs`.

mod check;
mod container;
mod group;
mod kinds;
mod mistake;
mod rule;
mod rules;
mod setting;
mod show;
mod sockets;
mod sources;
mod watch;

use std::path::Path;

use datapath::hist::Kept;
use datapath::socket::Options;

pub use container::{AskPod, Labels};
pub use group::Group;
pub use kinds::{Adopt, Cgroup, Connections, Executables, Listen, MemoryLimit, QueueLimit};
pub use mistake::Mistake;
pub use rule::{Ask, Cgroups, Name, Network, Outcome, Place, Ports, Rule};
pub use setting::{Change, Described, Origin, Setting};
pub use show::{example, toml};
pub use sockets::Sockets;
pub use sources::{DEFAULT_DIR, Error, Sources};
pub use watch::Watch;

setting::settings! {
    /// The cgroup2 directory whose processes are covered, or "host" for all processes.
    "cgroup" cgroup: Cgroup, example "\"/sys/fs/cgroup/apps\"", Change::Restart;

    /// Connections that may be enrolled at once.
    "socket.connections" connections: Connections, example "65536", Change::Detach;

    /// Bytes that may wait unread at one reader before its sender has to wait.
    "socket.queue_limit" queue_limit: QueueLimit, example "\"4MiB\"", Change::Live;

    /// TCP memory in use on the whole host, by everybody, above which nothing more is redirected.
    /// At most, and by default, three quarters of the first number of net.ipv4.tcp_mem.
    "socket.memory_limit" memory_limit: MemoryLimit, example "\"512MiB\"", Change::Live;

    /// Executables that do not call splice(2) on sockets, though their files could.
    "socket.never_splices" never_splices: Vec<Executables>, example "[\"/usr/bin/python3*\"]",
        Change::Detach;

    /// What becomes of connections that no rule matches: "auto" for the socket path where it is safe,
    /// "kernel" to leave them alone.
    "defaults.path" otherwise: Outcome, example "\"kernel\"", Change::Live;

    /// Whether connections are adopted while they run, where no rule says: those from before the agent,
    /// and those that did not fit when they were made, for instance because a socket blocked.
    "defaults.adopt" adopt: Adopt, example "false", Change::Live;

    /// Sockets of Docker and Podman, which tell names and labels of containers for rules and views, each
    /// as soon as it is there; [] to ask nobody.
    "containers.sockets" sockets: Sockets,
        example "[\"/run/docker.sock\", \"/run/podman/podman.sock\"]", Change::Restart;

    /// Where the page for browsers on this host is served, and Prometheus metrics at /metrics; "off"
    /// for nowhere.
    "http.listen" listen: Listen, example "\"127.0.0.1:9474\"", Change::Restart;

    /// The group whose members may ask the agent what happens, beside root: `beeline explain` and
    /// `beeline trace`. "root" for root alone.
    "control.group" group: Group, example "\"adm\"", Change::Restart;

    /// Histograms that are kept; [] for none. They are sizes of messages on either path, bytes that
    /// wait at a reader, round trips of the kernel path, handshakes and lives of connections.
    "observe.histograms" histograms: Kept, example "[\"redirected_message\", \"queue\"]", Change::Live;
}

impl Config {
    /// Whether an executable is one of those that do not call splice(2) on sockets.
    #[must_use]
    pub fn never_splices(&self, executable: &Path) -> bool {
        let patterns = &self.never_splices.value;
        patterns.iter().any(|one| one.matches(executable))
    }

    /// What the datapath is loaded with.
    #[must_use]
    pub fn options(&self) -> Options {
        let defaults = Options::default();
        Options {
            connections: self.connections.value.count(),
            // Above that a redirect may fail for want of memory, where TCP would let the sender wait.
            memory_limit: self.memory_limit.value.pages().min(defaults.memory_limit),
            queue_limit: self.queue_limit.value.bytes(),
            histograms: self.histograms.value,
        }
    }

    /// The settings whose values are others in `new`: as they are here, and there.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<(Described, Described)> {
        let pairs = self.describe().into_iter().zip(new.describe());
        pairs.filter(|(old, new)| old.value != new.value).collect()
    }
}
