//! Options of sockets take effect, by the kernel's own counters; peers notice what goes wrong.

use std::io::{ErrorKind, Write};
use std::net::{Ipv6Addr, TcpStream};
use std::time::Duration;

use testbed::traffic::{STALL, SocketOptions, accept, pair, rr, stream};
use testbed::{Error, Node, Pod, Result, kernel_test};

/// Exchanges messages between sockets with these options; the server serves both IP families.
fn exchange(
    client: &Pod,
    server: &Pod,
    options: SocketOptions,
    listener: SocketOptions,
) -> Result<()> {
    let both = listener.only_v6(false).reuse_port();
    let (listener, addr) = server.run(|| both.listen((Ipv6Addr::UNSPECIFIED, 0)))??;
    let served = server.spawn(move || rr::serve(&accept(&listener)?, 10))?;
    client.run(|| rr::client(&options.connect((server.ip(), addr.port()))?, 10, 5))??;
    assert_eq!(served.join()??, 5);
    Ok(())
}

kernel_test! {
    fn fast_open_carries_data_in_the_syn() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        web.fast_open()?;
        client.fast_open()?;
        exchange(&client, &web, SocketOptions::new().fast_open(), SocketOptions::new())?;
        assert_eq!(web.counter("TcpExt", "TCPFastOpenPassive")?, Some(1));
        Ok(())
    }

    fn syn_cookies_are_sent_always() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        web.syncookies(true)?;
        exchange(&client, &web, SocketOptions::new(), SocketOptions::new())?;
        assert_eq!(web.counter("TcpExt", "SyncookiesRecv")?, Some(1));
        Ok(())
    }

    fn multipath_tcp_is_spoken_by_both() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        exchange(&client, &web, SocketOptions::new().mptcp(), SocketOptions::new().mptcp())?;
        assert_eq!(web.counter("MPTcpExt", "MPCapableSYNRX")?, Some(1));
        Ok(())
    }

    fn small_buffers_and_a_bound_client_work() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let options = SocketOptions::new().bind((client.ip(), 4000)).receive_buffer(8192).send_buffer(8192);
        exchange(&client, &web, options, SocketOptions::new())
    }

    fn wrong_byte_is_named_by_its_offset() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (mut sender, receiver) = pair(&client, &web, web.ip())?;
        stream::send(&sender, 1, 1000, 100)?;
        sender.write_all(b"not of the stream").unwrap();
        drop(sender);
        let wrong = stream::verify(&receiver, 1, 4096).unwrap_err();
        assert!(matches!(wrong, Error::Stream { offset: 1000, .. }), "{wrong}");
        Ok(())
    }

    fn non_blocking_sockets_stream_as_well() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (sender, receiver) = pair(&client, &web, web.ip6())?;
        for sock in [&sender, &receiver] {
            sock.set_nonblocking(true).unwrap();
        }
        let received = web.spawn(move || stream::verify(&receiver, 1, stream::Chunk::up_to(9000, 1)))?;
        stream::send(&sender, 1, 2_000_000, stream::Chunk::up_to(9000, 2))?;
        stream::finish(&sender)?;
        assert_eq!(received.join()??, 2_000_000);
        Ok(())
    }

    fn peers_and_threads_have_deadlines() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (sock, silent) = pair(&client, &web, web.ip())?;
        let timeouts = |sock: &TcpStream| (sock.read_timeout().unwrap(), sock.write_timeout().unwrap());
        assert_eq!(timeouts(&sock), (Some(STALL), Some(STALL)));
        assert_eq!(timeouts(&silent), (Some(STALL), Some(STALL)));
        let refused = client.connect((web.ip(), 1)).unwrap_err();
        assert_eq!(refused.io().map(std::io::Error::kind), Some(ErrorKind::ConnectionRefused));
        let late = client.spawn(move || rr::serve(&sock, 10))?.join_within(Duration::from_millis(50));
        assert!(matches!(late, Err(Error::Timeout { .. })));
        Ok(())
    }
}
