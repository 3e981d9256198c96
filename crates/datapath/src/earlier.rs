//! Connections from before the attachment, whose handshakes nobody saw.

use std::collections::HashMap;

use libbpf_rs::{Link, MapCore, MapFlags, Object};

use crate::abi::{END_CLIENT, EndRecord, Handshake, MAX_NEWCOMERS, Newcomer, Verdict, Wire};
use crate::maps::{Maps, SHARED};
use crate::{Error, Result, netns, object};

/// Both ends of a connection that could be enrolled.
#[derive(Debug, Clone, Copy)]
pub struct Connection {
    /// The end that connected.
    pub client: EndRecord,
    /// The end that accepted.
    pub server: EndRecord,
}

/// The loaded iterators.
pub struct Earlier {
    /// With the map of those that are chosen.
    object: Object,
    /// Over the files of processes.
    find: Link,
    /// Over TCP sockets.
    remember: Link,
}

impl Earlier {
    /// Connections that are remembered at once, at most.
    pub const AT_ONCE: usize = MAX_NEWCOMERS / 2;

    /// Loads the iterators over the sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn load(maps: &Maps) -> Result<Self> {
        let open = object::open_iterator(object::EARLIER, "earlier", maps, &SHARED)?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterators over earlier connections"))?;
        Ok(Self {
            find: object::attach_iterator(&object, "beeline_earlier", None)?,
            remember: object::attach_iterator(&object, "beeline_remember", None)?,
            object,
        })
    }

    /// Connections of which nothing is known yet, of which both ends are on this host in cgroups that
    /// `covers` says are covered, and that could be enrolled now: neither end blocks, and programs have
    /// them that never splice. A socket that several programs have is left out.
    ///
    /// # Errors
    /// When the kernel refuses the iterator or a look-up.
    pub fn find(&self, maps: &Maps, covers: impl Fn(u64) -> bool) -> Result<Vec<Connection>> {
        let bytes = object::read(&self.find, "the iterator over earlier connections")?;
        let records = bytes.chunks_exact(size_of::<EndRecord>());
        let sockets = one_for_each_socket(records.filter_map(EndRecord::read));
        let is_covered = |both: &Connection| {
            [both.client, both.server]
                .iter()
                .all(|end| end.is_newcomer != 0 && covers(end.cgroup_id))
        };
        let mut found = Vec::new();
        for both in connections(&sockets).into_iter().filter(is_covered) {
            let client = maps.verdict(both.client.end.program)?;
            let server = maps.verdict(both.server.end.program)?;
            if [client, server] == [Verdict::NeverSplices; 2] {
                found.push(both);
            }
        }
        Ok(found)
    }

    /// Lets connections that were found wait to be adopted ([`crate::adopt`]), at most
    /// [`Earlier::AT_ONCE`] of them, each with the limit of unread bytes that the rules want for it, or
    /// 0. These must be of the rules in force.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub fn remember(&self, maps: &Maps, found: &[(Connection, u32)]) -> Result<()> {
        let generation = maps.settings()?.generation;
        let chosen = &found[..found.len().min(Self::AT_ONCE)];
        let ends = chosen
            .iter()
            .flat_map(|(both, limit)| [(both.client, *limit), (both.server, *limit)]);
        let map = self.object.maps().find(|map| map.name() == "newcomers");
        let map = map.expect("bpf/earlier.bpf.c defines it");
        for (end, queue_limit) in ends.clone() {
            let newcomer = Newcomer {
                own: end.end.own,
                program: end.end.program,
                queue_limit,
                generation,
                flags: end.end.flags.into(),
                pad: 0,
            };
            map.update(&end.cookie.to_ne_bytes(), newcomer.bytes(), MapFlags::ANY)
                .map_err(Error::bpf("add to the map", "newcomers"))?;
        }
        // The client's end has to be remembered before the server's, wherever they are.
        let namespaces = ends.clone().map(|(end, _)| end.netns).collect();
        netns::sweep(&self.remember, &namespaces, 2)?;
        for (end, _) in ends {
            map.delete(&end.cookie.to_ne_bytes())
                .map_err(Error::bpf("remove from the map", "newcomers"))?;
        }
        Ok(())
    }
}

/// Processes of the same program may share a socket; one of several programs is no newcomer.
fn one_for_each_socket(records: impl Iterator<Item = EndRecord>) -> Vec<EndRecord> {
    let mut sockets: HashMap<u64, EndRecord> = HashMap::new();
    for record in records {
        let known = sockets.entry(record.cookie).or_insert(record);
        if known.end.program != record.end.program {
            known.is_newcomer = 0;
        }
    }
    sockets.into_values().collect()
}

/// Sockets of which one's view of a handshake is the mirror image of the other's, and of no third one's.
/// As they were found, all are servers' views; a client counts the SYN that it sent.
fn connections(sockets: &[EndRecord]) -> Vec<Connection> {
    let mut servers: HashMap<Handshake, Option<EndRecord>> = HashMap::new();
    for socket in sockets {
        let others = servers.entry(socket.end.own);
        others
            .and_modify(|other| *other = None)
            .or_insert(Some(*socket));
    }
    let is_only = |socket: &&EndRecord| servers[&socket.end.own].is_some();
    let connection = |socket: &EndRecord| {
        let mut client = *socket;
        client.end.own.snd_nxt = client.end.own.snd_nxt.wrapping_add(1);
        client.end.flags = END_CLIENT as u8;
        let server = (*servers.get(&client.end.own.mirror())?)?;
        // One may be connected to itself.
        (client.cookie != server.cookie).then_some(Connection { client, server })
    };
    sockets
        .iter()
        .filter(is_only)
        .filter_map(connection)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::End;

    fn socket(cookie: u64, snd_nxt: u32, rcv_nxt: u32) -> EndRecord {
        let own = Handshake { snd_nxt, rcv_nxt };
        EndRecord {
            cookie,
            end: End {
                own,
                ..End::default()
            },
            ..EndRecord::default()
        }
    }

    fn pairs(sockets: &[EndRecord]) -> Vec<(u64, u64)> {
        let found = connections(sockets);
        found
            .iter()
            .map(|both| (both.client.cookie, both.server.cookie))
            .collect()
    }

    #[test]
    fn ends_of_which_one_counts_its_syn_are_a_connection() {
        let (client, server) = (socket(1, u32::MAX, 70), socket(2, 70, 0));
        assert_eq!(pairs(&[server, client]), [(1, 2)]);
        assert_eq!(pairs(&[client, socket(2, 70, 1)]), []);
        assert_eq!(pairs(&[client, socket(2, 71, 0)]), []);
        assert_eq!(pairs(&[client]), []);
        assert_eq!(pairs(&[socket(1, 70, 71)]), []);
    }

    #[test]
    fn what_is_ambiguous_is_none() {
        let (client, server) = (socket(1, 9, 70), socket(2, 70, 10));
        assert_eq!(pairs(&[client, server, socket(3, 70, 10)]), []);
        assert_eq!(pairs(&[client, server, socket(3, 9, 70)]), []);
    }

    #[test]
    fn a_socket_of_two_programs_is_no_newcomer() {
        let (mine, yours) = (newcomer(1, 7), newcomer(2, 8));
        let all = [mine, yours, mine, newcomer(2, 9), yours];
        let sockets = one_for_each_socket(all.into_iter());
        let newcomers = sockets.iter().map(|one| (one.cookie, one.is_newcomer));
        assert_eq!(
            newcomers.collect::<HashMap<_, _>>(),
            HashMap::from([(1, 1), (2, 0)])
        );
    }

    fn newcomer(cookie: u64, inode: u64) -> EndRecord {
        let mut record = socket(cookie, 9, 70);
        record.is_newcomer = 1;
        record.end.program.inode = inode;
        record
    }
}
