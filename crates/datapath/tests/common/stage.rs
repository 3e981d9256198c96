//! Two pods of a node, and connections between them.

use std::net::{TcpListener, TcpStream};

use testbed::{Node, Pod, traffic};

use super::Result;

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
