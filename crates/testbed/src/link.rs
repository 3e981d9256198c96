//! Links, addresses and routes, over routing netlink.
//!
//! Each call opens a netlink socket in the namespace and closes it again: a few hundred microseconds, and nothing to
//! keep alive.

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};

use futures::TryStreamExt;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoVeth, LinkAttribute,
};
use rtnetlink::packet_route::route::{RouteFlags, RouteScope};
use rtnetlink::{
    Handle, LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::error::{Error, NEEDS_ROOT, Result, Tried};
use crate::netns::NetNs;

/// The name of a link and the namespace it is in.
pub type End<'a> = (&'a NetNs, &'a str);

/// Makes a veth pair with an end in each namespace, at once: no name is taken anywhere else in between.
///
/// # Errors
/// [`Error::Netlink`] when a name is taken.
pub fn veth(a: End<'_>, b: End<'_>) -> Result<()> {
    let fd = b.0.as_fd().as_raw_fd();
    let peer = LinkMessageBuilder::<LinkUnspec>::new()
        .name(b.1)
        .setns_by_fd(fd)
        .build();
    let message = LinkVeth::new(a.1, b.1)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .build();
    request(
        a.0,
        &format!("make veth {} with peer {}", a.1, b.1),
        async move |handle| handle.link().add(message).execute().await,
    )
}

/// Makes a bridge and brings it up.
///
/// # Errors
/// [`Error::Netlink`] when the name is taken.
pub fn bridge(ns: &NetNs, name: &str) -> Result<()> {
    let message = LinkBridge::new(name).build();
    request(ns, &format!("make bridge {name}"), async move |handle| {
        handle.link().add(message).execute().await
    })
}

/// Makes `port` a port of `bridge`, in hairpin mode: frames may leave through the port they came in by, which a pod
/// that calls a service that is itself needs.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link.
pub fn enslave(ns: &NetNs, port: &str, bridge: &str) -> Result<()> {
    request(
        ns,
        &format!("make {port} a port of {bridge}"),
        async move |handle| {
            let (port, bridge) = (index(handle, port).await?, index(handle, bridge).await?);
            let set = LinkUnspec::new_with_index(port).controller(bridge).build();
            handle.link().set(set).execute().await?;
            let hairpin = InfoPortData::BridgePort(vec![InfoBridgePort::HairpinMode(true)]);
            let set = LinkBridgePort::new(port).set_port_data(hairpin).build();
            handle.link().set_port(set).execute().await
        },
    )
}

/// Brings a link up.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link.
pub fn up(ns: &NetNs, link: &str) -> Result<()> {
    request(ns, &format!("bring {link} up"), async move |handle| {
        let index = index(handle, link).await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await
    })
}

/// Takes a link down.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link.
pub fn down(ns: &NetNs, link: &str) -> Result<()> {
    request(ns, &format!("take {link} down"), async move |handle| {
        let index = index(handle, link).await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(index).down().build())
            .execute()
            .await
    })
}

/// Sets the MTU of a link, in bytes.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link or its driver refuses the size.
pub fn set_mtu(ns: &NetNs, link: &str, mtu: u32) -> Result<()> {
    request(
        ns,
        &format!("set the MTU of {link} to {mtu}"),
        async move |handle| {
            let index = index(handle, link).await?;
            handle
                .link()
                .set(LinkUnspec::new_with_index(index).mtu(mtu).build())
                .execute()
                .await
        },
    )
}

/// Removes a link; of a veth pair both ends go.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link.
pub fn remove(ns: &NetNs, link: &str) -> Result<()> {
    request(ns, &format!("remove {link}"), async move |handle| {
        let index = index(handle, link).await?;
        handle.link().del(index).execute().await
    })
}

/// Adds an address. IPv6 addresses skip duplicate address detection, so that they can be used at once.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link or it has the address already.
pub fn address(ns: &NetNs, link: &str, addr: IpAddr, prefix: u8) -> Result<()> {
    request(
        ns,
        &format!("add {addr}/{prefix} to {link}"),
        async move |handle| {
            let mut add = handle
                .address()
                .add(index(handle, link).await?, addr, prefix);
            if addr.is_ipv6() {
                let nodad = AddressAttribute::Flags(AddressFlags::Nodad);
                add.message_mut().attributes.push(nodad);
            }
            add.execute().await
        },
    )
}

/// Adds a route to `dest`/`prefix` by way of `gateway`; prefix 0 is the default route.
///
/// # Errors
/// [`Error::Netlink`] when the gateway cannot be reached, or the two are of different families.
pub fn route(ns: &NetNs, dest: IpAddr, prefix: u8, gateway: IpAddr) -> Result<()> {
    let tried = format!("add route {dest}/{prefix} via {gateway}");
    let message = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(dest, prefix)
        .and_then(|route| route.gateway(gateway))
        .map_err(std::io::Error::other)
        .tried("are both of one family?", || tried.clone())?
        .build();
    request(ns, &tried, async move |handle| {
        handle.route().add(message).execute().await
    })
}

/// Adds a route to `dest`/`prefix` out of `link`: to a neighbour there, or by way of `gateway`, which need not be in any
/// network of the link.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link, or addresses are of different families.
pub fn route_by_link(
    ns: &NetNs,
    dest: IpAddr,
    prefix: u8,
    link: &str,
    gateway: Option<IpAddr>,
) -> Result<()> {
    let tried = format!("add route {dest}/{prefix} by {link}");
    let mut route = RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(dest, prefix)
        .map_err(std::io::Error::other)
        .tried("", || tried.clone())?;
    if let Some(gateway) = gateway {
        route = route
            .gateway(gateway)
            .map_err(std::io::Error::other)
            .tried("are both of one family?", || tried.clone())?;
    } else {
        route = route.scope(RouteScope::Link);
    }
    request(ns, &tried, async move |handle| {
        let mut message = route.output_interface(index(handle, link).await?).build();
        if gateway.is_some() {
            message.header.flags |= RouteFlags::Onlink;
        }
        handle.route().add(message).execute().await
    })
}

/// Adds the default route of the family of `gateway`.
///
/// # Errors
/// [`Error::Netlink`] when the gateway cannot be reached.
pub fn default_route(ns: &NetNs, gateway: IpAddr) -> Result<()> {
    let any = match gateway {
        IpAddr::V4(_) => IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    route(ns, any, 0, gateway)
}

/// The names of all links in a namespace.
///
/// # Errors
/// [`Error::Netlink`] when the kernel does not answer.
pub fn names(ns: &NetNs) -> Result<Vec<String>> {
    request(ns, "list the links", async move |handle| {
        let links: Vec<_> = handle.link().get().execute().try_collect().await?;
        let attributes = links.into_iter().flat_map(|link| link.attributes);
        Ok(attributes
            .filter_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(name),
                _ => None,
            })
            .collect())
    })
}

/// The interface index of a link.
///
/// # Errors
/// [`Error::Netlink`] when there is no such link.
pub fn ifindex(ns: &NetNs, link: &str) -> Result<u32> {
    request(ns, &format!("look up {link}"), async move |handle| {
        index(handle, link).await
    })
}

async fn index(handle: &Handle, link: &str) -> Result<u32, rtnetlink::Error> {
    let mut found = handle.link().get().match_name(link.to_owned()).execute();
    let message = found
        .try_next()
        .await?
        .ok_or(rtnetlink::Error::RequestFailed)?;
    Ok(message.header.index)
}

/// Runs netlink requests on a thread in the namespace.
fn request<T: Send>(
    ns: &NetNs,
    tried: &str,
    ask: impl AsyncFnOnce(&Handle) -> Result<T, rtnetlink::Error> + Send,
) -> Result<T> {
    let setup = || format!("open a netlink socket in namespace {}", ns.name());
    ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .tried(NEEDS_ROOT, setup)?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().tried(NEEDS_ROOT, setup)?;
            tokio::spawn(connection);
            ask(&handle).await.map_err(|source| Error::Netlink {
                tried: tried.to_owned(),
                namespace: ns.name().to_owned(),
                source: Box::new(source),
            })
        })
    })?
}
