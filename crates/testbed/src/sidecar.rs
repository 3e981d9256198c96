//! Sidecar interception in a pod's own namespace, as Istio writes it, and the sysctls of TCP that matter here.

use crate::error::Result;
use crate::netns::NetNs;
use crate::node::Pod;

/// Connections that carry this mark are the proxy's own and are not redirected;
/// [`proxy::run`](crate::traffic::proxy::run) sets it.
pub const PROXY_MARK: u32 = 1337;
/// Connections of this user are the proxy's own, too.
pub const PROXY_UID: u32 = 1337;

/// The table with chains for the ports; applied again, nothing changes.
fn base() -> String {
    format!(
        "table inet sidecar {{
            chain inbound {{ }}
            chain outbound {{ }}
            chain prerouting {{ type nat hook prerouting priority -100; }}
            chain output {{ type nat hook output priority -100; }}
        }}
        flush chain inet sidecar prerouting
        flush chain inet sidecar output
        table inet sidecar {{
            chain prerouting {{ jump inbound; }}
            chain output {{
                meta mark {PROXY_MARK} return
                meta skuid {PROXY_UID} return
                ip daddr 127.0.0.0/8 return
                ip6 daddr ::1 return
                jump outbound
            }}
        }}\n"
    )
}

impl Pod {
    /// Redirects connections to port `from`, of others to this pod and of this pod to others, to a proxy in this pod
    /// that listens on port `to` of all addresses; for IPv4 and IPv6.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub fn redirect(&self, from: u16, to: u16) -> Result<()> {
        self.redirect_inbound(from, to)?;
        self.redirect_outbound(from, to)
    }

    /// Redirects connections of others to port `from` of this pod to port `to`.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub fn redirect_inbound(&self, from: u16, to: u16) -> Result<()> {
        self.add_redirect("inbound", from, to)
    }

    /// Redirects connections of this pod to port `from` of others to port `to` of this pod, except those of the proxy
    /// ([`PROXY_MARK`], [`PROXY_UID`]) and those to loopback addresses.
    ///
    /// # Errors
    /// When `nft` cannot be run.
    pub fn redirect_outbound(&self, from: u16, to: u16) -> Result<()> {
        self.add_redirect("outbound", from, to)
    }

    fn add_redirect(&self, chain: &str, from: u16, to: u16) -> Result<()> {
        let rule = format!("add rule inet sidecar {chain} tcp dport {from} redirect to :{to}\n");
        self.nft(&(base() + &rule)).map(drop)
    }
}

impl NetNs {
    /// Makes listeners in this namespace answer every connection with a SYN cookie, or only when their queue is full,
    /// which is the default.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when the kernel was built without SYN cookies.
    pub fn syncookies(&self, always: bool) -> Result<()> {
        self.sysctl("net.ipv4.tcp_syncookies", if always { 2 } else { 1 })
    }

    /// Lets all connections and listeners in this namespace use TCP Fast Open, without cookies and without the
    /// listener asking for it.
    ///
    /// # Errors
    /// [`Error::Os`](crate::Error::Os) when the kernel refuses.
    pub fn fast_open(&self) -> Result<()> {
        // Client, server, client without cookie, server without cookie, server without socket option
        // (tcp_fastopen in Documentation/networking/ip-sysctl.rst, 6.18).
        self.sysctl("net.ipv4.tcp_fastopen", 0x1 | 0x2 | 0x4 | 0x200 | 0x400)
    }
}
