//! Which way the directions of a connection go, taken together.

use std::fmt;
use std::str::FromStr;

use datapath::abi::TxPath;
use serde::Serialize;

use super::conns::Connection;

/// The way of one direction, of both, or of many connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Route {
    /// Nothing was sent yet.
    Start,
    /// Whatever sends is redirected to the peer's socket.
    Socket,
    /// Some directions are redirected, others go through the stack.
    Mixed,
    /// Whatever sends goes through the stack.
    Kernel,
}

/// Why a string is no route.
#[derive(Debug, thiserror::Error)]
#[error("it needs one of socket (or redirected), kernel, mixed and start")]
pub struct BadRoute;

impl Route {
    /// Every value.
    pub const ALL: [Self; 4] = [Self::Start, Self::Socket, Self::Mixed, Self::Kernel];

    /// Its name in output and filters; that of one direction is its path's.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => TxPath::Start.name(),
            Self::Socket => TxPath::Redirect.name(),
            Self::Mixed => "mixed",
            Self::Kernel => TxPath::Kernel.name(),
        }
    }

    /// Of one direction, by the name of its path.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        path.parse().unwrap_or(Self::Start)
    }

    /// Of two taken together; what sends nothing does not count.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Start, route) | (route, Self::Start) => route,
            (one, other) if one == other => one,
            _ => Self::Mixed,
        }
    }
}

impl Connection {
    /// Of both directions; a closed end sends nothing.
    #[must_use]
    pub fn route(&self) -> Route {
        let ends = self.client.iter().chain(&self.server);
        ends.map(|end| Route::of_path(end.path))
            .fold(Route::Start, Route::and)
    }
}

impl FromStr for Route {
    type Err = BadRoute;

    fn from_str(text: &str) -> Result<Self, BadRoute> {
        if text == "redirected" {
            return Ok(Self::Socket);
        }
        let found = Self::ALL.into_iter().find(|route| route.name() == text);
        found.ok_or(BadRoute)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_direction_does_not_make_a_connection_mixed() {
        assert_eq!(Route::Start.and(Route::Kernel), Route::Kernel);
        assert_eq!(Route::Socket.and(Route::Start), Route::Socket);
        assert_eq!(Route::Socket.and(Route::Kernel), Route::Mixed);
        assert_eq!(Route::Mixed.and(Route::Socket), Route::Mixed);
    }

    #[test]
    fn names_are_those_of_paths() {
        for route in Route::ALL {
            assert_eq!(route.name().parse::<Route>().unwrap(), route);
        }
        assert_eq!("redirected".parse::<Route>().unwrap(), Route::Socket);
        assert!("fast".parse::<Route>().is_err());
    }
}
