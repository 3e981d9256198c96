//! Rules: which connections take which path.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use super::container::{AskPod, Labels};
use super::kinds::{Adopt, Executables, QueueLimit, quoted};
use super::setting::Kind;

/// What becomes of connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Outcome {
    /// The socket path, where it is safe.
    Socket,
    /// The kernel's own.
    Kernel,
    /// The shortest path that this version has and that is safe: the socket path.
    #[default]
    Auto,
}

impl Outcome {
    /// As it is written in a configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Socket => "socket",
            Self::Kernel => "kernel",
            Self::Auto => "auto",
        }
    }
}

/// A line of a file, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One rule. The first that matches decides, for each end by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What it is called, for people.
    pub name: Option<String>,
    /// What becomes of the connections that it matches.
    pub path: Outcome,
    /// Whether connections are adopted that did not fit when they were made; where it does not say, the
    /// default decides.
    pub adopt: Option<Adopt>,
    /// Bytes that may wait unread at one reader; where it does not say, that of the socket path.
    pub queue_limit: Option<QueueLimit>,
    /// What it asks of an end of a connection.
    pub local: Ask,
    /// What it asks of that end's peer.
    pub remote: Ask,
    /// Where it begins.
    pub place: Place,
}

impl Rule {
    /// As a configuration has it.
    #[must_use]
    pub fn toml(&self) -> String {
        let name = self.name.as_deref();
        let name = name.map(|name| format!("name = {}\n", quoted(name)));
        let lines = self.lines().join("\n");
        format!(
            "[[rule]] # {}\n{}{lines}\n",
            self.place,
            name.unwrap_or_default()
        )
    }

    /// What it asks, and what becomes of the connections that it matches, in TOML on one line.
    #[must_use]
    pub fn asks(&self) -> String {
        self.lines().join(", ")
    }

    fn lines(&self) -> Vec<String> {
        let ask = |end, ask: &Ask| match ask.toml() {
            fields if fields.is_empty() => None,
            fields => Some(format!("{end} = {{ {} }}", fields.join(", "))),
        };
        let limit = self.queue_limit.as_ref();
        let lines = [
            Some(format!("path = \"{}\"", self.path.name())),
            self.adopt.map(|adopt| format!("adopt = {}", adopt.write())),
            limit.map(|limit| format!("queue_limit = {}", limit.write())),
            ask("local", &self.local),
            ask("remote", &self.remote),
        ];
        lines.into_iter().flatten().collect()
    }
}

/// What a rule asks of one end: something of every list that is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Cgroups, with all below them.
    pub cgroup: Vec<Cgroups>,
    /// Units of systemd.
    pub unit: Vec<Name>,
    /// Ids or names of containers.
    pub container: Vec<Name>,
    /// Labels of containers.
    pub labels: Labels,
    /// Pods.
    pub pod: AskPod,
    /// Executables of the program that connected or listens.
    pub executable: Vec<Executables>,
    /// Owners of the socket.
    pub uid: Vec<u32>,
    /// Addresses.
    pub cidr: Vec<Network>,
    /// Port numbers.
    pub port: Vec<Ports>,
}

impl Ask {
    fn toml(&self) -> Vec<String> {
        let fields = [
            list("cgroup", &self.cgroup),
            list("unit", &self.unit),
            list("container", &self.container),
            self.labels.toml().map(|table| format!("labels = {table}")),
            self.pod.toml().map(|table| format!("pod = {table}")),
            list("executable", &self.executable),
            list("uid", &self.uid),
            list("cidr", &self.cidr),
            list("port", &self.port),
        ];
        fields.into_iter().flatten().collect()
    }
}

/// One value by itself, several as an array.
pub(super) fn list<T: fmt::Display>(name: &str, values: &[T]) -> Option<String> {
    let written: Vec<_> = values.iter().map(ToString::to_string).collect();
    match written.as_slice() {
        [] => None,
        [one] => Some(format!("{name} = {one}")),
        all => Some(format!("{name} = [{}]", all.join(", "))),
    }
}

/// A pattern of paths of cgroups from the root of cgroup2; `*` stands for no slash, `**` for any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups(pub(super) glob::Pattern);

impl Cgroups {
    /// Whether a cgroup is one of them or below one.
    #[must_use]
    pub fn match_path(&self, cgroup: &str) -> bool {
        const OPTIONS: glob::MatchOptions = glob::MatchOptions {
            case_sensitive: true,
            require_literal_separator: true,
            require_literal_leading_dot: false,
        };
        let mut above = Path::new(cgroup).ancestors();
        above.any(|path| self.0.matches_path_with(path, OPTIONS))
    }
}

/// A pattern of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name(pub(super) glob::Pattern);

impl Name {
    /// Whether a name is one of them.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

/// A network, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that its addresses have in common.
    pub prefix: u8,
}

impl Network {
    /// Reads `10.0.0.0/8` or `10.0.0.1`.
    ///
    /// # Errors
    /// What is wrong with it, if more can be said than that it is no network.
    pub(super) fn read(text: &str) -> Result<Self, Option<String>> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let address: IpAddr = address.parse().map_err(|_| None)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            "" if !text.contains('/') => most,
            digits => digits.parse().map_err(|_| None)?,
        };
        if prefix > most {
            return Err(Some(format!("a prefix of this has at most {most} bits")));
        }
        let first = first(address, prefix);
        if first != address {
            return Err(Some(format!(
                "that is an address in {first}/{prefix}: write the network, or the address alone"
            )));
        }
        Ok(Self { address, prefix })
    }
}

/// The address with nothing behind the prefix.
fn first(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(ip) => {
            let behind = u32::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V4((ip.to_bits() & !behind).into())
        }
        IpAddr::V6(ip) => {
            let behind = u128::MAX.checked_shr(prefix).unwrap_or(0);
            IpAddr::V6((ip.to_bits() & !behind).into())
        }
    }
}

/// Port numbers from one to another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports(pub RangeInclusive<u16>);

impl Ports {
    /// Reads `8000-8099`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let range = from.trim().parse().ok()?..=to.trim().parse().ok()?;
        (!range.is_empty()).then_some(Self(range))
    }
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.0.as_str()))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.0.as_str()))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}/{}\"", self.address, self.prefix)
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.start(), self.0.end()) {
            (from, to) if from == to => write!(f, "{from}"),
            (from, to) => write!(f, "\"{from}-{to}\""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_comes_with_all_below_it() {
        let cgroups = |text| Cgroups(glob::Pattern::new(text).unwrap());
        for (pattern, path, expected) in [
            (
                "/system.slice/nginx.service",
                "/system.slice/nginx.service",
                true,
            ),
            (
                "/system.slice/nginx.service",
                "/system.slice/nginx.service/worker",
                true,
            ),
            (
                "/system.slice/nginx.service",
                "/system.slice/nginx.service2",
                false,
            ),
            ("/system.slice/*", "/system.slice", false),
            ("/*/db-*", "/apps/db-1/x", true),
            ("/*/db-*", "/apps/eu/db-1", false),
            ("/**/db-*", "/apps/eu/db-1", true),
            ("/", "/anything", true),
        ] {
            assert_eq!(
                cgroups(pattern).match_path(path),
                expected,
                "{pattern} {path}"
            );
        }
    }
}
