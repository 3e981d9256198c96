//! What `beeline explain` asks and is told.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a user wants to know about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// A connection that the first would make to the second.
    Between(Party, Party),
    /// A connection that is enrolled, by an address of either end or the cookie of either socket.
    Live(String),
}

/// Who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// A process.
    Pid(u32),
    /// A container, by its name or the beginning of its id.
    Container(String),
    /// A unit of systemd.
    Unit(String),
    /// A cgroup, by its path from the root of cgroup2.
    Cgroup(String),
}

/// One end of a connection, as far as a user says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// Who has the socket.
    pub who: Option<Who>,
    /// Its address, the same for both ends.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: Option<u16>,
}

/// Why a string names no end of a connection.
#[derive(Debug, thiserror::Error)]
#[error(
    "it needs pid:NUMBER, container:NAME, unit:NAME or cgroup:PATH, an address as 10.0.0.2, \
     10.0.0.2:5432 or :5432, or both with @ in between: unit:nginx.service@10.0.0.2:80"
)]
pub struct BadParty;

impl FromStr for Party {
    type Err = BadParty;

    fn from_str(text: &str) -> Result<Self, BadParty> {
        let (who, at) = match text.split_once('@') {
            Some((who, at)) => (Some(who), Some(at)),
            None if text.parse::<IpAddr>().is_err() && is_who(text) => (Some(text), None),
            None => (None, Some(text)),
        };
        let who = who.map(str::parse).transpose()?;
        let (ip, port) = at.map_or(Ok((None, None)), address)?;
        Ok(Self { who, ip, port })
    }
}

fn is_who(text: &str) -> bool {
    text.split_once(':')
        .is_some_and(|(kind, _)| matches!(kind, "pid" | "container" | "unit" | "cgroup"))
}

fn address(text: &str) -> Result<(Option<IpAddr>, Option<u16>), BadParty> {
    if let Some(port) = text.strip_prefix(':') {
        return Ok((None, Some(port.parse().map_err(|_| BadParty)?)));
    }
    if let Ok(addr) = text.parse::<SocketAddr>() {
        return Ok((Some(addr.ip()), Some(addr.port())));
    }
    Ok((Some(text.parse().map_err(|_| BadParty)?), None))
}

impl FromStr for Who {
    type Err = BadParty;

    fn from_str(text: &str) -> Result<Self, BadParty> {
        let (kind, name) = text.split_once(':').ok_or(BadParty)?;
        if name.is_empty() {
            return Err(BadParty);
        }
        match kind {
            "pid" => name.parse().map(Self::Pid).map_err(|_| BadParty),
            "container" => Ok(Self::Container(name.into())),
            "unit" => Ok(Self::Unit(name.into())),
            "cgroup" if name.starts_with('/') => Ok(Self::Cgroup(name.into())),
            _ => Err(BadParty),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid:{pid}"),
            Self::Container(id) => write!(f, "container:{id}"),
            Self::Unit(name) => write!(f, "unit:{name}"),
            Self::Cgroup(path) => write!(f, "cgroup:{path}"),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// What happens, and why.
    Explained(Box<Explained>),
    /// It cannot be told.
    Refused {
        /// Why, and what to do.
        why: String,
    },
}

/// What happens to a connection, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// `socket`, if the ends are proven local and nothing makes it unsafe; `kernel`; or `depends`, if
    /// a rule asks for something that is not known.
    pub path: String,
    /// Why it is on the kernel path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// As the end that connects sees it.
    pub client: EndExplained,
    /// As the end that accepts sees it.
    pub server: EndExplained,
}

/// What the rules say as one end sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndExplained {
    /// `socket`, `kernel`, `depends`, `unknown`, or `nothing`: no rule matches.
    pub says: String,
    /// The rule that decides, or on which it depends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<RuleNamed>,
    /// What is known of the end: fields of rules and their values.
    pub facts: Vec<(String, String)>,
    /// The program that connects or listens, if it may call splice(2) on its sockets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_splice: Option<String>,
    /// Path of what it sends now, of a live connection, and why if it is not the socket path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub now: Option<String>,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleNamed {
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// File and line where it begins.
    pub place: String,
    /// What it says, in TOML.
    pub text: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_named_by_who_and_where() {
        let party = |text: &str| text.parse::<Party>().ok();
        let at = |ip: Option<&str>, port| Party {
            who: None,
            ip: ip.map(|ip| ip.parse().unwrap()),
            port,
        };
        assert_eq!(
            party("10.0.0.2:5432"),
            Some(at(Some("10.0.0.2"), Some(5432)))
        );
        assert_eq!(party("10.0.0.2"), Some(at(Some("10.0.0.2"), None)));
        assert_eq!(party("[fd00::1]:80"), Some(at(Some("fd00::1"), Some(80))));
        assert_eq!(party("fd00::1"), Some(at(Some("fd00::1"), None)));
        assert_eq!(party(":80"), Some(at(None, Some(80))));
        let both = Party {
            who: Some(Who::Unit("a@b.service".replace('@', "-"))),
            ..at(None, Some(80))
        };
        assert_eq!(party("unit:a-b.service@:80"), Some(both));
        for bad in [
            "",
            "pid:x",
            "cgroup:a",
            "unit:",
            "nginx",
            "10.0.0.2:x",
            "pid:1@",
        ] {
            assert_eq!(party(bad), None, "{bad:?}");
        }
    }
}
