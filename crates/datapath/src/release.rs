//! Taking sockets out of the maps under their locks, wherever they are.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use libbpf_rs::{Link, Object};

use crate::abi::{EndRecord, Handshake};
use crate::maps::Maps;
use crate::{Error, Result, chosen, netns, object};

/// TCP_CLOSE, include/net/tcp_states.h: nothing arrives any more.
const TCP_CLOSE: u32 = 7;

/// A loaded iterator that releases sockets.
pub(crate) struct Release {
    object: Object,
    link: Arc<Link>,
    /// By inode number. One that cannot be found is looked for again.
    namespaces: HashMap<u32, Arc<File>>,
    /// Tells how the last sweep ended, if it has not told yet.
    sweeping: Option<Receiver<Result<()>>>,
}

/// How long a sweep is waited for. One that finds a socket locked goes on when it is not any more:
/// whoever has it may be waiting for a page.
const PATIENCE: Duration = Duration::from_millis(50);

impl Release {
    /// Makes ready to release at most so many sockets of `maps`.
    ///
    /// # Errors
    /// When the kernel refuses the iterator or its map.
    pub(crate) fn load(maps: &Maps, sockets: usize) -> Result<Self> {
        const USED: &[&str] = &["ends", "socks", "left", "expected"];
        let mut open = object::open_sharing(object::RELEASE, "release", maps, USED)?;
        chosen::size(&mut open, sockets)?;
        let object = open
            .load()
            .map_err(Error::bpf("load", "the iterator that releases sockets"))?;
        let link = object::attach_iterator(&object, "beeline_release")?;
        Ok(Self {
            object,
            link: Arc::new(link),
            namespaces: HashMap::new(),
            sweeping: None,
        })
    }

    /// Releases those of these sockets whose queues are empty and in whose calls nobody sleeps.
    /// Nothing may be on its way from one of them to another.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub(crate) fn free(&mut self, maps: &Maps, ends: &[EndRecord]) -> Result<()> {
        let (closed, open): (Vec<&EndRecord>, _) =
            ends.iter().partition(|end| end.state == TCP_CLOSE);
        for end in closed {
            maps.release(end.end.own)?;
        }
        let owns = open.iter().map(|end| end.end.own);
        chosen::add(&self.object, owns.collect::<Vec<Handshake>>(), 1)?;
        let inodes: HashSet<u32> = open.iter().map(|end| end.netns).collect();
        netns::find(&inodes, &mut self.namespaces)?;
        let found = inodes
            .iter()
            .filter_map(|inode| self.namespaces.get(inode).cloned());
        self.sweep(found.collect())
    }

    /// Starts a sweep of these namespaces, unless one is under way.
    fn sweep(&mut self, namespaces: Vec<Arc<File>>) -> Result<()> {
        let sweeping = self.sweeping.take().unwrap_or_else(|| {
            let (tell, told) = mpsc::channel();
            let link = self.link.clone();
            // Nobody listens any more when the drain was given up.
            thread::spawn(move || {
                tell.send(
                    namespaces
                        .iter()
                        .try_for_each(|ns| netns::sweep_here(&link, ns)),
                )
            });
            told
        });
        match sweeping.recv_timeout(PATIENCE) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout) => {
                self.sweeping = Some(sweeping);
                Ok(())
            }
            Err(RecvTimeoutError::Disconnected) => panic!("a sweep panicked"),
        }
    }
}
