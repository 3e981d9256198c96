//! REDIRECT to a sidecar in the pod, inbound and outbound, and what goes around it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use testbed::traffic::proxy::{self, Proxy, Upstream};
use testbed::traffic::{accept, connect, listen, rr, stream};
use testbed::{NetNs, Node, Pod, Result, kernel_test};

const APP: u16 = 8080;
const INBOUND: u16 = 15006;
const OUTBOUND: u16 = 15001;

/// A sidecar for what comes in or what goes out.
fn sidecar(
    pod: &Pod,
    any: impl Into<IpAddr>,
    port: u16,
    upstream: impl Into<Upstream>,
) -> Result<Proxy> {
    let (any, upstream) = (any.into(), upstream.into());
    pod.run(|| proxy::run(listen((any, port))?.0, upstream))?
}

/// Exchanges messages with a server in `server` that listens on `ip`.
fn call(client: &NetNs, server: &NetNs, ip: IpAddr) -> Result<()> {
    let (listener, addr) = server.listen((ip, APP))?;
    let served = server.spawn(move || rr::serve(&accept(&listener)?, 100))?;
    rr::client(&client.connect(addr)?, 100, 20)?;
    assert_eq!(served.join()??, 20);
    Ok(())
}

kernel_test! {
    fn inbound_goes_through_the_sidecar() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let v4 = sidecar(&web, Ipv4Addr::UNSPECIFIED, INBOUND, (web.ip(), APP))?;
        let v6 = sidecar(&web, Ipv6Addr::UNSPECIFIED, INBOUND + 1, (web.ip6(), APP))?;
        web.redirect_inbound(APP, INBOUND)?;
        call(&client, &web, web.ip().into())?;
        assert_eq!((v4.accepted(), v6.accepted()), (1, 0));
        web.nft("flush chain inet sidecar inbound")?;
        web.redirect_inbound(APP, INBOUND + 1)?;
        call(&client, &web, web.ip6().into())?;
        assert_eq!((v4.accepted(), v6.accepted()), (1, 1));
        Ok(())
    }

    fn sidecars_of_both_pods_are_passed() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let outbound = sidecar(&client, Ipv4Addr::UNSPECIFIED, OUTBOUND, Upstream::Original)?;
        let inbound = sidecar(&web, Ipv4Addr::UNSPECIFIED, INBOUND, Upstream::Original)?;
        client.redirect_outbound(APP, OUTBOUND)?;
        web.redirect_inbound(APP, INBOUND)?;
        call(&client, &web, web.ip().into())?;
        assert_eq!((outbound.accepted(), inbound.accepted()), (1, 1));
        Ok(())
    }

    fn original_destination_is_known_for_ipv6() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let outbound = sidecar(&client, Ipv6Addr::UNSPECIFIED, OUTBOUND, Upstream::Original)?;
        client.redirect(APP, OUTBOUND)?;
        call(&client, &web, web.ip6().into())?;
        assert_eq!(outbound.accepted(), 1);
        Ok(())
    }

    fn proxy_passes_on_the_end_of_each_direction() -> Result<()> {
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (listener, _) = web.run(|| listen((web.ip(), APP)))??;
        let _proxy = sidecar(&web, web.ip(), INBOUND, (web.ip(), APP))?;
        // The answer starts after the end of the question: a half-closed connection must live on.
        let server = web.spawn(move || {
            let sock = accept(&listener)?;
            let got = stream::verify(&sock, 1, 3000)?;
            stream::send(&sock, 2, 300_000, 1000)?;
            Ok::<_, testbed::Error>(got)
        })?;
        let got = client.run(|| {
            let sock = connect((web.ip(), INBOUND))?;
            stream::send(&sock, 1, 500_000, stream::Chunk::up_to(7000, 1))?;
            stream::finish(&sock)?;
            stream::verify(&sock, 2, 4096)
        })??;
        assert_eq!((server.join()??, got), (500_000, 300_000));
        Ok(())
    }
}
