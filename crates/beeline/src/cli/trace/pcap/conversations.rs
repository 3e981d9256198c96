//! The two ends of each captured connection.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::abi::{Handshake, Piece};
use datapath::{Maps, socket};

use crate::instance::Instance;
use crate::observe::conns::Connection;
use crate::observe::filter::{Filter, Subject};
use crate::observe::picture::Camera;
use crate::observe::route::Route;
use crate::workload::Workload;

/// Between two looks; each may ask every process on the host for its files.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection of which something was captured. Both directions have the client's addresses, so that they are one
/// conversation also where they are translated in between.
#[derive(Debug, Clone)]
pub(super) struct Conversation {
    /// Whether the user wants it.
    pub chosen: bool,
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// Bytes that the client, and the server, sent, as far as seen.
    pub sent: [u64; 2],
}

/// By the client's view.
type Known = HashMap<Handshake, Conversation>;

/// All connections that were seen lately.
pub(super) struct Conversations {
    filter: Filter,
    camera: Camera,
    /// By the last look, and since.
    known: Known,
    /// By the one before it: for connections that are gone, and whose last pieces are on their way.
    before: Known,
    /// When the last look began; as pieces tell the time, too.
    looked: (Instant, u64),
    /// Connections that were gone before anybody could tell whose they are.
    pub nameless: u64,
}

impl Conversations {
    /// Knows those that are there.
    pub(super) fn new(instance: &Instance, maps: &Maps, filter: Filter) -> Result<Self> {
        let mut conversations = Self {
            filter,
            camera: Camera::new(instance, maps)?,
            known: Known::new(),
            before: Known::new(),
            looked: (Instant::now(), 0),
            nameless: 0,
        };
        conversations.look(maps)?;
        Ok(conversations)
    }

    /// The one that a piece belongs to.
    pub(super) fn of(&mut self, maps: &Maps, piece: &Piece) -> Result<&mut Conversation> {
        let client = client_view(piece);
        // A look that began after the piece has seen all that can be seen of it.
        if !self.is_known(client) && self.looked.1 <= piece.at_ns {
            thread::sleep(PAUSE.saturating_sub(self.looked.0.elapsed()));
            self.look(maps)?;
        }
        let found = match self
            .known
            .remove(&client)
            .or_else(|| self.before.remove(&client))
        {
            Some(found) => found,
            None => self.unseen(piece),
        };
        Ok(self.known.entry(client).or_insert(found))
    }

    fn is_known(&self, client: Handshake) -> bool {
        self.known.contains_key(&client) || self.before.contains_key(&client)
    }

    fn look(&mut self, maps: &Maps) -> Result<()> {
        self.before = std::mem::take(&mut self.known);
        let is_first = self.looked.1 == 0;
        self.looked = (Instant::now(), socket::monotonic_ns());
        for conn in self.camera.look(maps)?.conns {
            let found = self.before.remove(&conn.handshake);
            let found = found.or_else(|| self.seen(&conn, is_first));
            self.known
                .extend(found.map(|found| (conn.handshake, found)));
        }
        Ok(())
    }

    /// `None` while nobody holds an end whose name is asked for: it is not accepted yet.
    fn seen(&self, conn: &Connection, is_first: bool) -> Option<Conversation> {
        let nameless = conn.ends().any(|end| end.workload.pid.is_none());
        if self.filter.asks_for_workloads() && nameless && !self.filter.shows(conn) {
            return None;
        }
        let (client, server) = match (&conn.client, &conn.server) {
            (Some(end), _) => (end.local, end.remote),
            (None, Some(end)) => (end.remote, end.local),
            (None, None) => return None,
        };
        Some(Conversation {
            chosen: self.filter.shows(conn),
            client,
            server,
            // What a later look sees may have been sent after the piece for which it looks.
            sent: [&conn.client, &conn.server].map(|end| match end {
                Some(end) if is_first => end.bytes(),
                _ => 0,
            }),
        })
    }

    /// Of one that is gone there are addresses only.
    fn unseen(&mut self, piece: &Piece) -> Conversation {
        let (local, remote) = piece.endpoints.addrs();
        let (client, server) = if piece.is_client == 0 {
            (remote, local)
        } else {
            (local, remote)
        };
        let fits = self
            .filter
            .without_workloads()
            .shows(&Addresses([client, server]));
        let named = !self.filter.asks_for_workloads();
        self.nameless += u64::from(fits && !named);
        Conversation {
            chosen: fits && named,
            client,
            server,
            sent: [0; 2],
        }
    }
}

/// The handshake of a piece's connection as its client sees it.
pub(super) fn client_view(piece: &Piece) -> Handshake {
    if piece.is_client == 0 {
        piece.own.mirror()
    } else {
        piece.own
    }
}

/// All that is known of a connection that is gone.
struct Addresses([SocketAddr; 2]);

impl Subject for Addresses {
    fn workloads(&self) -> Vec<&Workload> {
        Vec::new()
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.0.to_vec()
    }

    fn reasons(&self) -> Vec<&str> {
        Vec::new()
    }

    fn route(&self) -> Option<Route> {
        None
    }

    fn event(&self) -> Option<&str> {
        None
    }
}
