//! What a user wants to see of connections and events: the same in every view.

mod address;
mod text;

use std::net::SocketAddr;

use datapath::abi::{EventKind, Reason};

use super::conns::Connection;
use super::route::Route;
use crate::workload::Workload;

pub use address::{Address, BadAddress};
pub use text::BadFilter;

/// Shows what fits everything that is said; of several ports, addresses, paths, reasons or events
/// one is enough. The empty one shows everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Each is part of the name of a process, container or cgroup at some end, in any case of letters.
    pub words: Vec<String>,
    /// Ports at either end, or of the peer as either end sees it.
    pub ports: Vec<u16>,
    /// Addresses, likewise.
    pub addresses: Vec<Address>,
    /// Which way it goes.
    pub routes: Vec<Route>,
    /// Why something of it is not redirected.
    pub reasons: Vec<Reason>,
    /// What happened.
    pub events: Vec<EventKind>,
}

/// What can be filtered. What it does not know fits no filter that asks for it.
pub trait Subject {
    /// Who is at its ends, as far as known.
    fn workloads(&self) -> Vec<&Workload>;
    /// Every address that somebody may know it by.
    fn addresses(&self) -> Vec<SocketAddr>;
    /// Names of [`Reason`]s.
    fn reasons(&self) -> Vec<&str>;
    /// Which way it goes.
    fn route(&self) -> Option<Route>;
    /// Name of its [`EventKind`].
    fn event(&self) -> Option<&str>;
}

impl Filter {
    /// Whether the user wants to see it.
    #[must_use]
    pub fn shows(&self, subject: &impl Subject) -> bool {
        let addresses = subject.addresses();
        let (reasons, route, event) = (subject.reasons(), subject.route(), subject.event());
        self.names(&subject.workloads())
            && any(&self.ports, |port| {
                addresses.iter().any(|a| a.port() == *port)
            })
            && any(&self.addresses, |own| addresses.iter().any(|a| own.has(*a)))
            && any(&self.routes, |own| route == Some(*own))
            && any(&self.reasons, |own| reasons.contains(&own.name()))
            && any(&self.events, |own| event == Some(own.name()))
    }

    /// The same for all who are at the ends.
    #[must_use]
    pub fn without_workloads(&self) -> Self {
        Self {
            words: Vec::new(),
            ..self.clone()
        }
    }

    fn names(&self, workloads: &[&Workload]) -> bool {
        let texts: Vec<String> = workloads.iter().map(|workload| text_of(workload)).collect();
        let named = |word: &String| {
            let word = word.to_lowercase();
            texts.iter().any(|text| text.contains(&word))
        };
        self.words.iter().all(named)
    }

    /// Whether it asks who is at the ends.
    #[must_use]
    pub fn asks_for_workloads(&self) -> bool {
        !self.words.is_empty()
    }
}

/// Whether nothing is asked for, or one of what is asked for fits.
fn any<T>(asked: &[T], fits: impl FnMut(&T) -> bool) -> bool {
    asked.is_empty() || asked.iter().any(fits)
}

/// Everything that a workload is called, for a search.
fn text_of(workload: &Workload) -> String {
    let cgroup = workload.cgroup.as_deref().unwrap_or_default();
    format!("{} {cgroup}", workload.label()).to_lowercase()
}

impl Subject for Connection {
    fn workloads(&self) -> Vec<&Workload> {
        self.ends().map(|end| &end.workload).collect()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.ends()
            .flat_map(|end| [end.local, end.remote])
            .collect()
    }

    fn reasons(&self) -> Vec<&str> {
        self.ends().filter_map(|end| end.reason).collect()
    }

    fn route(&self) -> Option<Route> {
        Some(Connection::route(self))
    }

    fn event(&self) -> Option<&str> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    fn shows(filter: &str) -> bool {
        let conn = fixture::connection(1, "nginx", "Redis");
        filter.parse::<Filter>().unwrap().shows(&conn)
    }

    #[test]
    fn everything_said_has_to_fit() {
        assert!(shows(""));
        assert!(shows("ngin") && shows("REDIS") && shows("nginx redis"));
        assert!(!shows("nginx postgres"));
        assert!(shows("nginx port:6379") && !shows("postgres port:6379"));
    }

    #[test]
    fn of_several_values_one_is_enough() {
        assert!(shows("port:80,6379") && !shows("port:80,81"));
        assert!(shows("path:socket,mixed") && !shows("path:kernel"));
    }

    #[test]
    fn addresses_of_either_end_fit() {
        assert!(shows("10.0.0.1") && shows("10.0.0.2:6379") && shows("address:10.0.0.0/24"));
        assert!(!shows("10.0.1.0/24"));
    }

    #[test]
    fn reasons_of_either_end_fit() {
        let mut conn = fixture::connection(1, "nginx", "redis");
        let filter: Filter = "reason:queue_full".parse().unwrap();
        assert!(!filter.shows(&conn));
        conn.server.as_mut().unwrap().reason = Some("queue_full");
        assert!(filter.shows(&conn));
    }

    #[test]
    fn what_a_subject_does_not_have_fits_no_filter_for_it() {
        let filter = Filter {
            events: vec![EventKind::Closed],
            ..Filter::default()
        };
        assert!(!filter.shows(&fixture::connection(1, "nginx", "redis")));
    }
}
