//! The lines of the list: connections, or all connections between two workloads.

use std::collections::HashMap;
use std::net::SocketAddr;

use datapath::abi::Handshake;

use crate::observe::conns::End;
use crate::observe::rates::{Live, Rate, Trend};
use crate::observe::route::Route;
use crate::observe::sort::Ranked;

/// What is said of an end that is gone.
const CLOSED: &str = "closed";

/// What a line stands for, from one sample to the next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    Connection(Handshake),
    Pair(Pair),
}

/// Names of a client's and a server's workload.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Pair {
    pub client: String,
    pub server: String,
}

impl Pair {
    pub(super) fn of(live: &Live) -> Self {
        let name = |end: Option<&End>| end.map_or(CLOSED.into(), |end| end.workload.name());
        Self {
            client: name(live.conn.client.as_ref()),
            server: name(live.conn.server.as_ref()),
        }
    }
}

/// One side of a line.
#[derive(Debug, Clone)]
pub(super) struct Party {
    pub name: String,
    /// The same without process ids.
    pub short: String,
    /// Of a connection's end.
    pub address: Option<SocketAddr>,
    /// Which way it sends.
    pub route: Route,
    pub rate: Rate,
}

/// One line.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub key: Key,
    pub client: Party,
    pub server: Party,
    pub connections: usize,
    /// Both directions, so far.
    pub bytes: u64,
    /// Of the oldest connection, in seconds.
    pub age: f64,
    pub reasons: Vec<&'static str>,
    pub trend: Trend,
}

impl Row {
    pub(super) fn of(live: &Live) -> Self {
        let conn = &live.conn;
        let mut reasons: Vec<_> = conn.ends().filter_map(|end| end.reason).collect();
        reasons.dedup();
        Self {
            key: Key::Connection(conn.handshake),
            client: party(conn.client.as_ref(), live.client_rate),
            server: party(conn.server.as_ref(), live.server_rate),
            connections: 1,
            bytes: live.bytes(),
            age: conn.age_seconds,
            reasons,
            trend: live.trend.clone(),
        }
    }

    fn of_pair(pair: Pair, live: &Live) -> Self {
        let mut row = Self::of(live);
        row.client = Party {
            name: pair.client.clone(),
            short: pair.client.clone(),
            address: None,
            ..row.client
        };
        row.server = Party {
            name: pair.server.clone(),
            short: pair.server.clone(),
            address: None,
            ..row.server
        };
        row.key = Key::Pair(pair);
        row
    }

    fn add(&mut self, other: Self) {
        self.client.add(&other.client);
        self.server.add(&other.server);
        self.connections += other.connections;
        self.bytes += other.bytes;
        self.age = self.age.max(other.age);
        self.reasons.extend(other.reasons);
        self.reasons.sort_unstable();
        self.reasons.dedup();
        add_trend(&mut self.trend, &other.trend);
    }
}

impl Party {
    fn add(&mut self, other: &Self) {
        self.route = self.route.and(other.route);
        self.rate = self.rate + other.rate;
    }
}

fn party(end: Option<&End>, rate: Rate) -> Party {
    Party {
        name: end.map_or(CLOSED.into(), |end| end.workload.label()),
        short: end.map_or(CLOSED.into(), |end| end.workload.name()),
        address: end.map(|end| end.local),
        route: end.map_or(Route::Start, |end| Route::of_path(end.path)),
        rate,
    }
}

/// Both end now; the younger one began later.
fn add_trend(sum: &mut Trend, other: &Trend) {
    while sum.len() < other.len() {
        sum.push_front(0);
    }
    let newest_first = sum.iter_mut().rev().zip(other.iter().rev());
    newest_first.for_each(|(sum, other)| *sum += other);
}

/// One line a pair of workloads, in the order of their oldest connections.
pub(super) fn pairs<'a>(live: impl Iterator<Item = &'a Live>) -> Vec<Row> {
    let (mut rows, mut places) = (Vec::<Row>::new(), HashMap::new());
    for live in live {
        let pair = Pair::of(live);
        let place = *places.entry(pair.clone()).or_insert(rows.len());
        let row = Row::of_pair(pair, live);
        match rows.get_mut(place) {
            Some(sum) => sum.add(row),
            None => rows.push(row),
        }
    }
    rows
}

impl Ranked for Row {
    fn rate(&self) -> f64 {
        (self.client.rate + self.server.rate).bytes()
    }

    fn messages(&self) -> f64 {
        (self.client.rate + self.server.rate).redirected_messages
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn age(&self) -> f64 {
        self.age
    }

    fn name(&self) -> String {
        self.client.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    #[test]
    fn pairs_add_up_what_is_between_the_same_workloads() {
        let mut live = fixture::live(&[("nginx", "redis"), ("nginx", "redis"), ("app", "redis")]);
        live[1].conn.client.as_mut().unwrap().path = "kernel";
        live[1].conn.client.as_mut().unwrap().reason = Some("queue_full");
        live[1].conn.age_seconds = 9.0;
        live[0].trend = Trend::from([1, 2, 3]);
        live[1].trend = Trend::from([10]);
        let rows = pairs(live.iter());
        assert_eq!(rows.len(), 2);
        let row = &rows[0];
        assert_eq!(
            (&*row.client.name, &*row.server.name, row.connections),
            ("nginx", "redis", 2)
        );
        assert_eq!(
            (row.client.route, row.server.route),
            (Route::Mixed, Route::Socket)
        );
        assert_eq!(
            (row.reasons.as_slice(), row.age),
            (&["queue_full"][..], 9.0)
        );
        assert_eq!(row.trend, [1, 2, 13]);
        assert_eq!(row.rate(), live[0].rate() + live[1].rate());
    }

    #[test]
    fn a_closed_end_is_said_to_be_closed() {
        let mut live = fixture::live(&[("nginx", "redis")]);
        live[0].conn.server = None;
        assert_eq!(Row::of(&live[0]).server.name, "closed");
    }
}
