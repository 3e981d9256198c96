//! The configuration file: TOML, every key optional, unknown keys refused.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use datapath::socket::Options;
use serde::Deserialize;

/// Read when no `--config` is given and it exists.
pub const DEFAULT_FILE: &str = "/etc/beeline/beeline.toml";

/// What a configuration file can say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The cgroup2 directory whose processes are covered; the root of the mount when absent.
    pub cgroup: Option<PathBuf>,
    /// The socket path.
    pub socket: Socket,
    /// What the agent serves over HTTP.
    pub http: Http,
}

/// The table `[socket]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Socket {
    /// Connections that may be enrolled at once.
    pub connections: Option<Connections>,
    /// Bytes that may wait unread at one reader before its sender has to wait, as `"4MiB"` or a
    /// number of bytes.
    pub queue_limit: Option<ByteSize>,
    /// TCP memory in use on the whole host, by everybody, above which nothing more is redirected; at
    /// most [`datapath::socket::memory_limit`], which is the default.
    pub memory_limit: Option<ByteSize>,
    /// Executables that do not call splice(2) on sockets, whatever their files say: patterns of
    /// paths, as `"/usr/bin/python3*"`.
    pub never_splices: Vec<Executables>,
}

/// A pattern of paths of executables, in the words of a shell.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Executables(glob::Pattern);

impl TryFrom<String> for Executables {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if !text.starts_with('/') {
            return Err(format!(
                "never_splices: expected patterns of absolute paths, found {text:?}"
            ));
        }
        glob::Pattern::new(&text)
            .map(Self)
            .map_err(|error| format!("never_splices: {text:?} is no pattern: {error}"))
    }
}

/// The table `[http]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Where metrics are served: an address with a port, or `"off"`; [`DEFAULT_LISTEN`] when absent.
    pub listen: Option<Listen>,
}

/// Only processes of this host can reach it.
pub const DEFAULT_LISTEN: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9474);

/// Where to listen, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let addr = text.parse().map(Self::At);
        addr.map_err(|_| {
            format!("listen: expected an address with a port such as \"{DEFAULT_LISTEN}\", or \"off\", found {text:?}")
        })
    }
}

/// A number of connections that a map can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u32")]
pub struct Connections(u32);

impl TryFrom<u32> for Connections {
    type Error = String;

    fn try_from(count: u32) -> Result<Self, String> {
        const MOST: u32 = 1 << 24;
        match count {
            1..=MOST => Ok(Self(count)),
            _ => Err(format!(
                "connections: expected a number from 1 to {MOST}, found {count}"
            )),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The file says something that is not understood; `source` names line and field.
    #[error("wrong configuration in {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads `file`, or the default file if there is one.
    ///
    /// # Errors
    /// When the file cannot be read or says something that is not understood.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let path = match file {
            Some(path) => path,
            None if Path::new(DEFAULT_FILE).exists() => Path::new(DEFAULT_FILE),
            None => return Ok(Self::default()),
        };
        let text = fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.into(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| Error::Parse {
            path: path.into(),
            source: Box::new(source),
        })
    }

    /// Whether an executable is one of those that do not call splice(2) on sockets.
    #[must_use]
    pub fn never_splices(&self, executable: &Path) -> bool {
        let patterns = &self.socket.never_splices;
        patterns.iter().any(|one| one.0.matches_path(executable))
    }

    /// What the datapath is loaded with.
    #[must_use]
    pub fn options(&self) -> Options {
        let defaults = Options::default();
        let limit = self.socket.queue_limit.map(|size| size.as_u64());
        Options {
            connections: self
                .socket
                .connections
                .map_or(defaults.connections, |c| c.0),
            // Above that a redirect may fail for want of memory, where TCP would let the sender wait.
            memory_limit: self
                .socket
                .memory_limit
                .map_or(defaults.memory_limit, |size| {
                    (size.as_u64() / rustix::param::page_size() as u64).min(defaults.memory_limit)
                }),
            queue_limit: limit.map_or(defaults.queue_limit, |bytes| {
                u32::try_from(bytes).unwrap_or(u32::MAX)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parse("").unwrap(), Config::default());
    }

    #[test]
    fn sizes_have_units() {
        let config = parse("[socket]\nqueue_limit = \"2MiB\"\nconnections = 10").unwrap();
        assert_eq!(config.options().queue_limit, 2 << 20);
        assert_eq!(config.options().connections, 10);
    }

    #[test]
    fn http_is_on_loopback_elsewhere_or_off() {
        assert!(DEFAULT_LISTEN.ip().is_loopback());
        let listen = |text: &str| parse(text).map(|config| config.http.listen);
        assert_eq!(listen(""), Ok(None));
        assert_eq!(listen("[http]\nlisten = \"off\""), Ok(Some(Listen::Off)));
        let at = Listen::At(([0, 0, 0, 0, 0, 0, 0, 1], 80).into());
        assert_eq!(listen("[http]\nlisten = \"[::1]:80\""), Ok(Some(at)));
        let wrong = listen("[http]\nlisten = \"localhost\"").unwrap_err();
        assert!(
            wrong.contains("line 2") && wrong.contains("127.0.0.1:"),
            "{wrong}"
        );
    }

    #[test]
    fn the_limit_for_the_host_is_in_pages_and_never_above_the_default() {
        let limit = |text: &str| parse(text).unwrap().options().memory_limit;
        let pages = (64 << 20) / rustix::param::page_size() as u64;
        assert_eq!(limit("[socket]\nmemory_limit = \"64MiB\""), pages);
        let most = Options::default().memory_limit;
        assert_eq!(limit("[socket]\nmemory_limit = \"64TiB\""), most);
        assert_eq!(limit(""), most);
    }

    #[test]
    fn executables_are_named_by_patterns() {
        let config = parse("[socket]\nnever_splices = [\"/usr/bin/python3*\"]").unwrap();
        assert!(config.never_splices(Path::new("/usr/bin/python3.12")));
        assert!(!config.never_splices(Path::new("/usr/sbin/haproxy")));
        let wrong = parse("[socket]\nnever_splices = [\"python3\"]").unwrap_err();
        assert!(
            wrong.contains("line 2") && wrong.contains("absolute"),
            "{wrong}"
        );
    }

    #[test]
    fn mistakes_name_line_field_and_what_was_expected() {
        let unknown = parse("[socket]\nconections = 10").unwrap_err();
        assert!(
            unknown.contains("line 2") && unknown.contains("conections"),
            "{unknown}"
        );
        assert!(unknown.contains("`connections`"), "{unknown}");
        let zero = parse("[socket]\nconnections = 0").unwrap_err();
        assert!(
            zero.contains("line 2") && zero.contains("from 1 to"),
            "{zero}"
        );
        let kind = parse("cgroup = 7").unwrap_err();
        assert!(
            kind.contains("line 1") && kind.contains("expected"),
            "{kind}"
        );
    }
}
