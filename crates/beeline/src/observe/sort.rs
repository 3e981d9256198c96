//! The order of connections.

use std::cmp::Ordering;

use clap::ValueEnum;

use super::rates::Live;

/// What comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sort {
    /// Most bytes a second
    Rate,
    /// Most redirected messages a second
    Messages,
    /// Most bytes
    Bytes,
    /// Oldest
    Age,
    /// Name of the client's process or container
    Process,
}

/// What can be put in order.
pub trait Ranked {
    /// Bytes a second, both directions.
    fn rate(&self) -> f64;
    /// Redirected messages a second, both directions.
    fn messages(&self) -> f64;
    /// Bytes so far, both directions.
    fn bytes(&self) -> u64;
    /// In seconds.
    fn age(&self) -> f64;
    /// The client's.
    fn name(&self) -> String;
}

impl Sort {
    /// Its name on the command line and on the screen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Messages => "messages",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Process => "process",
        }
    }

    /// Whether it needs two pictures.
    #[must_use]
    pub fn needs_rates(self) -> bool {
        matches!(self, Self::Rate | Self::Messages)
    }

    /// Puts them in order; equal ones stay as they are, also reversed.
    pub fn apply(self, items: &mut [impl Ranked], reverse: bool) {
        items.sort_by(|one, other| {
            let order = self.compare(one, other);
            if reverse { order.reverse() } else { order }
        });
    }

    fn compare<T: Ranked>(self, one: &T, other: &T) -> Ordering {
        match self {
            Self::Rate => other.rate().total_cmp(&one.rate()),
            Self::Messages => other.messages().total_cmp(&one.messages()),
            Self::Bytes => other.bytes().cmp(&one.bytes()),
            Self::Age => other.age().total_cmp(&one.age()),
            Self::Process => one.name().cmp(&other.name()),
        }
    }
}

impl Ranked for Live {
    fn rate(&self) -> f64 {
        (self.client_rate + self.server_rate).bytes()
    }

    fn messages(&self) -> f64 {
        (self.client_rate + self.server_rate).redirected_messages
    }

    fn bytes(&self) -> u64 {
        self.conn.ends().map(super::conns::End::bytes).sum()
    }

    fn age(&self) -> f64 {
        self.conn.age_seconds
    }

    fn name(&self) -> String {
        let client = self.conn.client.as_ref();
        client.map_or(String::new(), |end| end.workload.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;
    use crate::observe::rates::{Rate, Trend};

    fn live(id: u32, client: &str, rate: f64, bytes: u64, age: f64) -> Live {
        let mut conn = fixture::connection(id, client, "redis");
        conn.server.as_mut().unwrap().kernel_bytes = bytes;
        conn.age_seconds = age;
        let server_rate = Rate {
            redirected_bytes: rate,
            redirected_messages: 100.0 - rate,
            kernel_bytes: 0.0,
        };
        Live {
            conn,
            client_rate: Rate::default(),
            server_rate,
            trend: Trend::new(),
        }
    }

    fn order(sort: Sort, reverse: bool) -> Vec<u32> {
        let mut items = vec![
            live(1, "b", 10.0, 500, 3.0),
            live(2, "a", 30.0, 400, 2.0),
            live(3, "c", 20.0, 600, 1.0),
        ];
        sort.apply(&mut items, reverse);
        items
            .iter()
            .map(|live| live.conn.handshake.snd_nxt)
            .collect()
    }

    #[test]
    fn the_most_comes_first() {
        assert_eq!(order(Sort::Rate, false), [2, 3, 1]);
        assert_eq!(order(Sort::Messages, false), [1, 3, 2]);
        assert_eq!(order(Sort::Bytes, false), [3, 1, 2]);
        assert_eq!(order(Sort::Age, false), [1, 2, 3]);
        assert_eq!(order(Sort::Process, false), [2, 1, 3]);
    }

    #[test]
    fn reversed_the_least_does() {
        assert_eq!(order(Sort::Rate, true), [1, 3, 2]);
        assert_eq!(order(Sort::Process, true), [3, 1, 2]);
    }
}
