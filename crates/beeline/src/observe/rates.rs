//! What is sent a second, from one picture to the next.

use std::collections::{HashMap, VecDeque};
use std::ops::Add;
use std::time::{Duration, Instant};

use datapath::abi::Handshake;
use serde::Serialize;

use super::conns::Connection;
use super::picture::{Picture, Sent};

/// Pictures that a trend goes back.
const TREND: usize = 60;

/// What one direction, or several together, send a second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Rate {
    /// Bytes past the stack.
    pub redirected_bytes: f64,
    /// Messages past the stack.
    pub redirected_messages: f64,
    /// Bytes through the stack; its messages are not counted.
    pub kernel_bytes: f64,
}

impl Rate {
    /// Bytes either way.
    #[must_use]
    pub fn bytes(self) -> f64 {
        self.redirected_bytes + self.kernel_bytes
    }

    fn between(before: Sent, after: Sent, time: Duration) -> Self {
        let rate = |before: u64, after: u64| {
            after.saturating_sub(before) as f64 / time.as_secs_f64().max(1e-3)
        };
        Self {
            redirected_bytes: rate(before.redirected_bytes, after.redirected_bytes),
            redirected_messages: rate(before.redirected_messages, after.redirected_messages),
            kernel_bytes: rate(before.kernel_bytes, after.kernel_bytes),
        }
    }
}

impl Add for Rate {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            redirected_bytes: self.redirected_bytes + other.redirected_bytes,
            redirected_messages: self.redirected_messages + other.redirected_messages,
            kernel_bytes: self.kernel_bytes + other.kernel_bytes,
        }
    }
}

/// Bytes a second at the last pictures, newest last.
pub type Trend = VecDeque<u64>;

/// A connection with what it sends now.
#[derive(Debug, Clone, Serialize)]
pub struct Live {
    /// As it was at the last picture.
    #[serde(flatten)]
    pub conn: Connection,
    /// By the client; bytes and messages a second.
    pub client_rate: Rate,
    /// By the server.
    pub server_rate: Rate,
    /// Of both directions.
    #[serde(skip)]
    pub trend: Trend,
}

impl From<Connection> for Live {
    /// Without rates.
    fn from(conn: Connection) -> Self {
        Self {
            conn,
            client_rate: Rate::default(),
            server_rate: Rate::default(),
            trend: Trend::new(),
        }
    }
}

/// Everything at one moment.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Oldest first.
    pub live: Vec<Live>,
    /// Of all connections, also those that came and went since the last picture.
    pub total: Rate,
    /// Past the stack.
    pub redirected: Trend,
    /// Through the stack.
    pub kernel: Trend,
}

/// Remembers one picture to compare the next one with.
#[derive(Debug, Default)]
pub struct Meter {
    before: Option<(Instant, Sent)>,
    conns: HashMap<Handshake, Seen>,
    redirected: Trend,
    kernel: Trend,
}

#[derive(Debug)]
struct Seen {
    client: Sent,
    server: Sent,
    trend: Trend,
}

impl Meter {
    /// What was sent a second since the last picture; nothing at the first.
    pub fn measure(&mut self, picture: Picture, at: Instant) -> Sample {
        let time = self.before.map(|(before, _)| at.duration_since(before));
        let total = self.total(picture.sent, at);
        push(&mut self.redirected, total.redirected_bytes);
        push(&mut self.kernel, total.kernel_bytes);
        let mut before = std::mem::take(&mut self.conns);
        let live = picture.conns.into_iter().map(|conn| {
            let seen = before.remove(&conn.handshake);
            self.live(conn, seen, time)
        });
        let live = live.collect();
        Sample {
            live,
            total,
            redirected: self.redirected.clone(),
            kernel: self.kernel.clone(),
        }
    }

    fn total(&mut self, sent: Sent, at: Instant) -> Rate {
        let Some((before_at, before)) = self.before.replace((at, sent)) else {
            return Rate::default();
        };
        // An end that closes during a look is missing in it, and back with the next.
        let most = Sent {
            redirected_bytes: sent.redirected_bytes.max(before.redirected_bytes),
            redirected_messages: sent.redirected_messages.max(before.redirected_messages),
            kernel_bytes: sent.kernel_bytes.max(before.kernel_bytes),
        };
        self.before = Some((at, most));
        Rate::between(before, most, at.duration_since(before_at))
    }

    fn live(&mut self, conn: Connection, seen: Option<Seen>, time: Option<Duration>) -> Live {
        let (client, server) = (
            Sent::by(conn.client.as_ref()),
            Sent::by(conn.server.as_ref()),
        );
        let young = time.is_some_and(|time| conn.age_seconds <= time.as_secs_f64());
        let mut seen = seen.unwrap_or_else(|| first_sight(young, client, server));
        let rate =
            |before, after| time.map_or(Rate::default(), |time| Rate::between(before, after, time));
        let (client_rate, server_rate) = (rate(seen.client, client), rate(seen.server, server));
        push(&mut seen.trend, client_rate.bytes() + server_rate.bytes());
        let trend = seen.trend.clone();
        let seen = Seen {
            client,
            server,
            ..seen
        };
        self.conns.insert(conn.handshake, seen);
        Live {
            conn,
            client_rate,
            server_rate,
            trend,
        }
    }
}

/// All that a connection sent counts if it is younger than the last picture, and nothing if it was
/// there before the first.
fn first_sight(young: bool, client: Sent, server: Sent) -> Seen {
    let trend = Trend::new();
    let (client, server) = if young {
        (Sent::default(), Sent::default())
    } else {
        (client, server)
    };
    Seen {
        client,
        server,
        trend,
    }
}

fn push(trend: &mut Trend, value: f64) {
    if trend.len() == TREND {
        trend.pop_front();
    }
    trend.push_back(value as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::fixture;

    const SECOND: Duration = Duration::from_secs(1);

    fn picture(id: u32, redirected: u64, kernel: u64) -> Picture {
        let mut conn = fixture::connection(id, "nginx", "redis");
        let client = conn.client.as_mut().unwrap();
        (client.redirected_bytes, client.kernel_bytes) = (redirected, kernel);
        client.redirected_messages = redirected / 100;
        let sent = Sent::by(conn.client.as_ref());
        Picture {
            conns: vec![conn],
            sent,
        }
    }

    #[test]
    fn rates_are_of_the_time_between_two_pictures() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let first = meter.measure(picture(1, 1_000, 0), start);
        assert_eq!(first.live[0].client_rate, Rate::default());
        let second = meter.measure(picture(1, 5_000, 600), start + 2 * SECOND);
        let expected = Rate {
            redirected_bytes: 2_000.0,
            redirected_messages: 20.0,
            kernel_bytes: 300.0,
        };
        assert_eq!(second.live[0].client_rate, expected);
        assert_eq!(second.live[0].server_rate, Rate::default());
        assert_eq!(second.total, expected);
        assert_eq!(second.live[0].trend, [0, 2_300]);
    }

    #[test]
    fn one_that_began_since_the_last_picture_counts_from_its_beginning() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.measure(Picture::default(), start);
        let sample = meter.measure(picture(1, 4_000, 0), start + 2 * SECOND);
        assert_eq!(sample.live[0].client_rate.redirected_bytes, 2_000.0);
    }

    #[test]
    fn one_that_was_missed_before_makes_no_peak() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.measure(Picture::default(), start);
        let mut late = picture(1, 1 << 40, 0);
        late.conns[0].age_seconds = 100.0;
        let sample = meter.measure(late, start + SECOND);
        assert_eq!(sample.live[0].client_rate, Rate::default());
    }

    #[test]
    fn an_end_that_closes_during_a_look_makes_no_peak() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.measure(picture(1, 9_000, 0), start);
        meter.measure(picture(1, 0, 0), start + SECOND);
        let sample = meter.measure(picture(1, 9_500, 0), start + 2 * SECOND);
        assert_eq!(sample.total.redirected_bytes, 500.0);
    }

    #[test]
    fn a_trend_forgets_what_is_old() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        for step in 0..100 {
            let sample = meter.measure(picture(1, 0, 0), start + step * SECOND);
            assert!(sample.live[0].trend.len() <= TREND);
        }
    }
}
