//! Connections from before the attachment, whose handshakes nobody saw.

use std::collections::HashMap;

use libbpf_rs::{Link, MapCore, MapFlags, Object};

use crate::abi::{END_CLIENT, EndRecord, Handshake, MAX_NEWCOMERS, Newcomer, View, Wire};
use crate::maps::{Maps, SHARED};
use crate::{Error, Result, netns, object};

/// The sockets of a connection that could be enrolled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// The client's view of the handshake.
    client_view: Handshake,
    client: u64,
    server: u64,
}

/// Both ends of such a connection, with all that rules may ask.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The end that connected.
    pub client: EndRecord,
    /// The end that accepted.
    pub server: EndRecord,
}

/// The loaded iterators.
pub struct Earlier {
    /// With the map of newcomers.
    object: Object,
    /// Over the files of processes.
    find: Link,
    facts: Link,
    /// Over TCP sockets.
    remember: Link,
}

impl Earlier {
    /// Connections of which facts are had and that are remembered at once, at most.
    pub const AT_ONCE: usize = MAX_NEWCOMERS / 2;

    /// Loads the iterators over the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(maps: &Maps) -> Result<Self> {
        let open = object::open_sharing(object::EARLIER, "earlier", maps, &SHARED)?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterators over earlier connections"))?;
        Ok(Self {
            find: object::attach_iterator(&object, "beeline_earlier")?,
            facts: object::attach_iterator(&object, "beeline_newcomers")?,
            remember: object::attach_iterator(&object, "beeline_remember")?,
            object,
        })
    }

    /// Connections of which nothing is known yet, of which both ends are on this host, and that could be
    /// enrolled now: neither end blocks, and programs have them that never splice. A socket that several
    /// programs have is left out.
    ///
    /// # Errors
    /// When the kernel refuses the iterator.
    pub fn find(&self) -> Result<Vec<Pair>> {
        let bytes = object::read(&self.find, "the iterator over established sockets")?;
        let views = bytes.chunks_exact(size_of::<View>());
        Ok(pairs(one_for_each_socket(views.filter_map(View::read))))
    }

    /// What rules may ask of at most [`Earlier::AT_ONCE`] of these; of those that still are there.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn facts(&self, pairs: &[Pair]) -> Result<Vec<Connection>> {
        let chosen = &pairs[..pairs.len().min(Self::AT_ONCE)];
        let client = |pair: &Pair| Newcomer {
            own: pair.client_view,
            flags: END_CLIENT,
            ..Newcomer::default()
        };
        let server = |pair: &Pair| Newcomer {
            own: pair.client_view.mirror(),
            ..Newcomer::default()
        };
        let newcomers: Vec<_> = chosen
            .iter()
            .flat_map(|pair| [(pair.client, client(pair)), (pair.server, server(pair))])
            .collect();
        let bytes = self.among(&newcomers, || {
            object::read(&self.facts, "the iterator over earlier connections")
        })?;
        let records = bytes.chunks_exact(size_of::<EndRecord>());
        let records = records.filter_map(EndRecord::read);
        let by_inode: HashMap<_, _> = records.map(|record| (record.inode, record)).collect();
        let both = |pair: &Pair| {
            let [client, server] = [pair.client, pair.server].map(|end| by_inode.get(&end));
            Some(Connection {
                client: *client?,
                server: *server?,
            })
        };
        Ok(chosen.iter().filter_map(both).collect())
    }

    /// Lets connections that were found wait to be adopted ([`crate::adopt`]), at most
    /// [`Earlier::AT_ONCE`] of them, each with the limit of unread bytes that the rules want for it, or
    /// 0. These must be of the rules in force.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn remember(&self, maps: &Maps, found: &[(Connection, u32)]) -> Result<()> {
        let generation = maps.settings()?.generation;
        let newcomer = |end: EndRecord, queue_limit| {
            let newcomer = Newcomer {
                own: end.end.own,
                program: end.end.program,
                queue_limit,
                generation,
                flags: end.end.flags.into(),
                pad: 0,
            };
            (end.inode, newcomer)
        };
        let chosen = found[..found.len().min(Self::AT_ONCE)].iter();
        let ends = chosen.flat_map(|(both, limit)| [(both.client, *limit), (both.server, *limit)]);
        let namespaces = ends.clone().map(|(end, _)| end.netns).collect();
        let newcomers: Vec<_> = ends.map(|(end, limit)| newcomer(end, limit)).collect();
        // The client's end has to be remembered before the server's, wherever they are.
        self.among(&newcomers, || netns::sweep(&self.remember, &namespaces, 2))
    }

    /// Does something while the map of newcomers has these, by the inodes of their files.
    fn among<T>(
        &self,
        newcomers: &[(u64, Newcomer)],
        act: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        const WHAT: &str = "the map newcomers";
        let map = object::map(&self.object, "newcomers");
        for (inode, newcomer) in newcomers {
            map.update(&inode.to_ne_bytes(), newcomer.bytes(), MapFlags::ANY)
                .map_err(Error::bpf("add to", WHAT))?;
        }
        let done = act()?;
        for (inode, _) in newcomers {
            map.delete(&inode.to_ne_bytes())
                .map_err(Error::bpf("remove from", WHAT))?;
        }
        Ok(done)
    }
}

/// Processes of the same program may share a socket; one of several programs is no newcomer.
fn one_for_each_socket(views: impl Iterator<Item = View>) -> Vec<View> {
    let mut sockets: HashMap<u64, View> = HashMap::new();
    for view in views {
        let known = sockets.entry(view.socket).or_insert(view);
        if (known.inode, known.device) != (view.inode, view.device) || view.is_newcomer == 0 {
            known.is_newcomer = 0;
        }
    }
    sockets.into_values().collect()
}

/// Newcomers of which one's view of a handshake is the mirror image of the other's, and of no third
/// socket's. As they were found, all are servers' views; a client counts the SYN that it sent.
fn pairs(sockets: Vec<View>) -> Vec<Pair> {
    let mut servers: HashMap<Handshake, Option<View>> = HashMap::new();
    for socket in &sockets {
        let others = servers.entry(socket.own);
        others
            .and_modify(|other| *other = None)
            .or_insert(Some(*socket));
    }
    let is_only = |socket: &View| servers[&socket.own].is_some();
    let pair = |client: View| {
        let mut client_view = client.own;
        client_view.snd_nxt = client_view.snd_nxt.wrapping_add(1);
        let server = (*servers.get(&client_view.mirror())?)?;
        // One may be connected to itself.
        let is_pair = client.socket != server.socket;
        let are_newcomers = client.is_newcomer != 0 && server.is_newcomer != 0;
        (is_pair && are_newcomers).then_some(Pair {
            client_view,
            client: client.socket,
            server: server.socket,
        })
    };
    let found = sockets.iter().filter(|socket| is_only(socket));
    found.copied().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(socket: u64, snd_nxt: u32, rcv_nxt: u32) -> View {
        View {
            own: Handshake { snd_nxt, rcv_nxt },
            socket,
            is_newcomer: 1,
            ..View::default()
        }
    }

    fn inodes(sockets: &[View]) -> Vec<(u64, u64)> {
        let found = pairs(sockets.to_vec());
        found
            .iter()
            .map(|pair| (pair.client, pair.server))
            .collect()
    }

    #[test]
    fn ends_of_which_one_counts_its_syn_are_a_connection() {
        let (client, server) = (socket(1, u32::MAX, 70), socket(2, 70, 0));
        assert_eq!(inodes(&[server, client]), [(1, 2)]);
        assert_eq!(inodes(&[client, socket(2, 70, 1)]), []);
        assert_eq!(inodes(&[client, socket(2, 71, 0)]), []);
        assert_eq!(inodes(&[client]), []);
        assert_eq!(inodes(&[socket(1, 70, 71)]), []);
    }

    #[test]
    fn what_is_ambiguous_is_none_though_the_third_could_not_be_enrolled() {
        let (client, server) = (socket(1, 9, 70), socket(2, 70, 10));
        for mut third in [socket(3, 70, 10), socket(3, 9, 70)] {
            third.is_newcomer = 0;
            assert_eq!(inodes(&[client, server, third]), []);
        }
    }

    #[test]
    fn both_have_to_be_newcomers() {
        for known in [0, 1] {
            let mut both = [socket(1, 9, 70), socket(2, 70, 10)];
            both[known].is_newcomer = 0;
            assert_eq!(inodes(&both), []);
        }
    }

    #[test]
    fn a_socket_of_two_programs_is_no_newcomer() {
        let of = |number, inode| View {
            inode,
            ..socket(number, 9, 70)
        };
        let views = [of(1, 7), of(2, 8), of(1, 7), of(2, 9), of(2, 8)];
        let sockets = one_for_each_socket(views.into_iter());
        let newcomers = sockets.iter().map(|one| (one.socket, one.is_newcomer));
        assert_eq!(
            newcomers.collect::<HashMap<_, _>>(),
            HashMap::from([(1, 1), (2, 0)])
        );
    }
}
