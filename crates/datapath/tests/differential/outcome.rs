//! What a call came to, and what an end looks like between calls.

use std::fmt;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// What one call returned. Everything in it is compared.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The return value, or the errno below 0.
    pub ret: i64,
    /// Of the bytes that were received; 0 without any.
    pub hash: u64,
    /// Whatever else the call tells: message flags, control messages, results of later messages.
    pub more: Vec<i64>,
}

impl Outcome {
    /// A plain return value.
    pub fn of(ret: i64) -> Self {
        Self {
            ret,
            ..Self::default()
        }
    }

    /// The errno of the call just made.
    pub fn errno() -> Self {
        Self::of(-i64::from(
            io::Error::last_os_error().raw_os_error().unwrap_or(0),
        ))
    }

    /// What a call returned that says -1 when it failed.
    pub fn from(ret: impl Into<i64>) -> Self {
        match ret.into() {
            -1 => Self::errno(),
            ret => Self::of(ret),
        }
    }

    /// With the received bytes.
    pub fn with(mut self, bytes: &[u8]) -> Self {
        if !bytes.is_empty() {
            let mut hasher = DefaultHasher::new();
            hasher.write(bytes);
            self.hash = hasher.finish();
        }
        self
    }

    /// The errno, or 0.
    pub fn error(&self) -> i32 {
        i32::try_from(-self.ret.min(0)).unwrap_or(0)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.ret < 0 {
            let text = io::Error::from_raw_os_error(self.error()).to_string();
            write!(f, "errno {text}")?;
        } else {
            write!(f, "{}", self.ret)?;
        }
        if self.hash != 0 {
            write!(f, " bytes#{:08x}", self.hash >> 32)?;
        }
        if !self.more.is_empty() {
            write!(f, " {:?}", self.more)?;
        }
        Ok(())
    }
}

/// What anybody can see of an end without changing it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `poll` with no time to wait: its events.
    pub poll: i16,
    /// `FIONREAD`, or the errno below 0.
    pub unread: i64,
    /// The TCP state (include/net/tcp_states.h), or the errno below 0.
    pub state: i64,
}

/// Names of the bits of poll.
const EVENTS: [(i16, &str); 6] = [
    (libc::POLLIN, "IN"),
    (libc::POLLPRI, "PRI"),
    (libc::POLLOUT, "OUT"),
    (libc::POLLERR, "ERR"),
    (libc::POLLHUP, "HUP"),
    (libc::POLLRDHUP, "RDHUP"),
];

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let events: Vec<_> = EVENTS
            .iter()
            .filter(|(bit, _)| self.poll & bit != 0)
            .map(|(_, name)| *name)
            .collect();
        write!(
            f,
            "poll {} FIONREAD {} state {}",
            events.join("|"),
            self.unread,
            self.state
        )
    }
}

/// Bytes after which the pattern repeats: a prime, so that no size of a call is a multiple of it.
const PERIOD: u64 = 65_521;

/// The bytes of a stream, a function of who sends them and where they are in it.
pub fn pattern(seed: u64, at: u64, bytes: &mut [u8]) {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    let table = TABLE.get_or_init(|| (0..PERIOD).map(mixed).collect());
    let mut from = ((at + seed * 7919) % PERIOD) as usize;
    let mut rest = bytes;
    while !rest.is_empty() {
        let count = rest.len().min(table.len() - from);
        let (now, later) = rest.split_at_mut(count);
        now.copy_from_slice(&table[from..from + count]);
        (rest, from) = (later, 0);
    }
}

/// A mixing function (splitmix64) of the place, so that any shift shows.
fn mixed(index: u64) -> u8 {
    let mut z = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z >> 31) as u8
}

/// Where the bytes first differ from the pattern, counted from 1; 0 when nowhere.
pub fn first_wrong(seed: u64, at: u64, bytes: &[u8]) -> i64 {
    let mut right = vec![0; bytes.len()];
    pattern(seed, at, &mut right);
    let wrong = bytes.iter().zip(&right).position(|(a, b)| a != b);
    wrong.map_or(0, |index| at as i64 + index as i64 + 1)
}
