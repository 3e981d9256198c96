//! Two pods of a node, and connections between them.

use std::net::{TcpListener, TcpStream};

use datapath::socket::Options;
use testbed::{Cgroup, Node, Pod, traffic, wait_for};

use super::{Bed, Result, SOON, talk};

pub struct Stage {
    pub node: Node,
    pub web: Pod,
    pub client: Pod,
}

impl Stage {
    pub fn new() -> Result<Self> {
        let node = Node::new()?;
        Ok(Self {
            web: node.pod("web")?,
            client: node.pod("client")?,
            node,
        })
    }

    pub fn pair(&self) -> Result<(TcpStream, TcpStream)> {
        Ok(traffic::pair(&self.client, &self.web, self.web.ip())?)
    }

    /// A connection that does not block; both ends have redirected if there is a bed.
    pub fn redirected_pair(&self, bed: Option<&Bed>) -> Result<(TcpStream, TcpStream)> {
        let (a, b) = self.pair()?;
        talk(&a, &b)?;
        if let Some(bed) = bed {
            assert_eq!((bed.enrolled().len(), bed.redirected()?), (2, 10));
        }
        Ok((a, b))
    }

    /// Both ends block, as std makes them.
    pub fn blocking_pair(&self) -> Result<(TcpStream, TcpStream)> {
        let listener = self.web.run(|| TcpListener::bind((self.web.ip(), 0)))??;
        let addr = listener.local_addr()?;
        let a = self.client.run(|| TcpStream::connect(addr))??;
        let b = listener.accept()?.0;
        for sock in [&a, &b] {
            traffic::bounded(sock)?;
        }
        Ok((a, b))
    }
}

pub fn unblock((a, b): &(TcpStream, TcpStream)) -> Result {
    a.set_nonblocking(true)?;
    b.set_nonblocking(true)?;
    Ok(())
}

/// Runs a scenario without Beeline and with it; returns what both came to.
pub fn with_and_without<T>(
    cgroup: &Cgroup,
    scenario: impl Fn(&Stage, Option<&Bed>) -> Result<T>,
) -> Result<(T, T)> {
    let plain = scenario(&Stage::new()?, None)?;
    let bed = Bed::with(cgroup, Options::default())?;
    Ok((plain, scenario(&Stage::new()?, Some(&bed))?))
}

/// Talks until the server's end, which blocks, is plain TCP.
pub fn until_server_left(bed: &Bed, (a, b): &(TcpStream, TcpStream)) -> Result {
    let left = || -> Result<bool> {
        talk(a, b)?;
        let ends = bed.ends()?;
        let server = ends.iter().find(|end| !end.end.is_client());
        Ok(server.ok_or("no server")?.has_psock == 0)
    };
    Ok(wait_for("plain TCP", SOON, || left().expect("it lists"))?)
}
