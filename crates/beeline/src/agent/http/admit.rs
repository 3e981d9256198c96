//! Who gets the page: people at this host, and no other page.
//!
//! Anybody who can connect gets it without a password, and it names processes and containers. So it is for connections
//! from this host alone, wherever metrics are served. A page from elsewhere that is open in the same browser must not
//! read it: it cannot across origins, unless its own name resolves to this host (DNS rebinding), which the name in the
//! request tells.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// With these a browser runs only the page's own scripts, lets none of them make markup out of text, and sends nothing
/// elsewhere.
const HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
];

pub(super) async fn this_host(
    State(listen): State<SocketAddr>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let mut response = match refusal(listen.ip(), peer.ip(), request.headers()) {
        Some(refusal) => refusal.into_response(),
        None => next.run(request).await,
    };
    let headers = HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value)));
    response.headers_mut().extend(headers);
    response
}

fn refusal(
    listen: IpAddr,
    peer: IpAddr,
    headers: &HeaderMap,
) -> Option<(StatusCode, &'static str)> {
    if !is_this_host(listen, peer) {
        return Some((
            StatusCode::FORBIDDEN,
            "the page is for this host alone; from elsewhere, forward a port with ssh -L\n",
        ));
    }
    if !headers.get(header::HOST).is_some_and(names_this_host) {
        return Some((
            StatusCode::MISDIRECTED_REQUEST,
            "ask for the page by an IP address, or as localhost\n",
        ));
    }
    let site = headers.get("sec-fetch-site");
    let mode = headers.get("sec-fetch-mode");
    // A link to the page is fine, and so is a browser that does not tell.
    if site.is_some_and(|site| site == "cross-site") && mode.is_none_or(|mode| mode != "navigate") {
        return Some((StatusCode::FORBIDDEN, "another site asks for this\n"));
    }
    None
}

/// Who connects to one of this host's own addresses from this host has that address, too.
fn is_this_host(listen: IpAddr, peer: IpAddr) -> bool {
    let (listen, peer) = (listen.to_canonical(), peer.to_canonical());
    peer.is_loopback() || peer == listen
}

/// Addresses resolve to nothing else.
fn names_this_host(host: &HeaderValue) -> bool {
    let authority = host
        .to_str()
        .ok()
        .and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(
        listen: &str,
        peer: &str,
        headers: &[(&'static str, &'static str)],
    ) -> Option<StatusCode> {
        let headers = headers.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let refusal = refusal(
            listen.parse().unwrap(),
            peer.parse().unwrap(),
            &headers.collect(),
        );
        refusal.map(|(status, _)| status)
    }

    #[test]
    fn the_page_is_for_this_host() {
        let host = [("host", "127.0.0.1:9474")];
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1", "10.0.0.5"] {
            assert_eq!(status("10.0.0.5", peer, &host), None, "{peer}");
        }
        for peer in ["10.0.0.6", "192.0.2.1", "2001:db8::1"] {
            assert_eq!(
                status("0.0.0.0", peer, &host),
                Some(StatusCode::FORBIDDEN),
                "{peer}"
            );
        }
    }

    #[test]
    fn names_that_anybody_may_resolve_to_this_host_are_refused() {
        let of = |host| status("127.0.0.1", "127.0.0.1", &[("host", host)]);
        for host in [
            "localhost",
            "LocalHost:80",
            "127.0.0.1:9474",
            "[::1]:9474",
            "[::1]",
        ] {
            assert_eq!(of(host), None, "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9474",
            "",
            "127.0.0.1.evil.example",
        ] {
            assert_eq!(of(host), Some(StatusCode::MISDIRECTED_REQUEST), "{host}");
        }
        let none = status("127.0.0.1", "127.0.0.1", &[]);
        assert_eq!(none, Some(StatusCode::MISDIRECTED_REQUEST));
    }

    #[test]
    fn other_sites_may_link_to_it_but_not_load_from_it() {
        let from = |site, mode| {
            let headers = [
                ("host", "localhost"),
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
            ];
            status("127.0.0.1", "127.0.0.1", &headers)
        };
        assert_eq!(from("same-origin", "cors"), None);
        assert_eq!(from("none", "navigate"), None);
        assert_eq!(from("cross-site", "navigate"), None);
        assert_eq!(from("cross-site", "no-cors"), Some(StatusCode::FORBIDDEN));
    }
}
