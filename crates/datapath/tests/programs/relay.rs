//! Programs that relay between a client and a server, each with its own way of moving bytes.

use datapath::abi::{Reason, Totals};
use testbed::traffic::{accept, stream};
use testbed::{Cgroup, kernel_test};

use crate::common::Result;
use crate::stage::{Server, Stage, expect_left_alone, expect_redirected, on_both_paths};
use crate::stage::{go, source};
use crate::tokio_relay::relay_by_tokio;
use crate::web::{RELAY, UPLOADS, WEB, Web, by_nginx, nginx};

/// Plays web traffic through a relay on both paths.
fn web_through(cgroup: &Cgroup, relay: impl Fn(&Stage, &str) -> Result<Server>) -> Result<Totals> {
    on_both_paths(cgroup, |stage| {
        let web = Web::start(stage, by_nginx)?;
        let relay = relay(stage, &format!("{}:{WEB}", stage.server.ip()))?;
        let seen = web.visit(stage, &format!("http://{}:{RELAY}", stage.proxy.ip()))?;
        relay.end_content()?;
        web.end()?;
        Ok(seen)
    })
}

/// Bytes each way of a half-closed connection.
const HALF: u64 = 12 << 20;

/// Plays connections that end one direction and go on in the other, through a relay on both paths.
fn half_close_through(
    cgroup: &Cgroup,
    relay: impl Fn(&Stage, &str) -> Result<Server>,
) -> Result<Totals> {
    on_both_paths(cgroup, |stage| {
        let (listener, addr) = stage.server.listen((stage.server.ip(), 0))?;
        let relay = relay(stage, &addr.to_string())?;
        for seed in [1, 2, 3] {
            let client = stage.client.connect((stage.proxy.ip(), RELAY))?;
            let server = accept(&listener)?;
            let answer = stage.server.spawn(move || -> testbed::Result<u64> {
                let got = stream::verify(&server, seed, 100_000)?;
                stream::send(&server, seed + 10, HALF, 100_000)?;
                stream::finish(&server)?;
                Ok(got)
            })?;
            stream::send(&client, seed, HALF, 100_000)?;
            stream::finish(&client)?;
            let got = stream::verify(&client, seed + 10, 100_000)?;
            assert_eq!((answer.join()??, got), (HALF, HALF));
        }
        relay.end_content()
    })
}

/// Web traffic through a relay that does not block and does not splice.
fn web_redirected(cgroup: &Cgroup, relay: impl Fn(&Stage, &str) -> Result<Server>) -> Result {
    expect_redirected(&web_through(cgroup, relay)?, 1 << 20);
    Ok(())
}

/// Half-closed connections through one.
fn half_close_redirected(
    cgroup: &Cgroup,
    relay: impl Fn(&Stage, &str) -> Result<Server>,
) -> Result {
    expect_redirected(&half_close_through(cgroup, relay)?, HALF);
    Ok(())
}

/// Web traffic through a relay of which nothing may be redirected, on neither of its sides: what is enrolled is
/// the server's own.
fn web_left_alone(
    cgroup: &Cgroup,
    relay: impl Fn(&Stage, &str) -> Result<Server>,
    why: Reason,
) -> Result {
    expect_left_alone(&web_through(cgroup, relay)?, why, UPLOADS);
    Ok(())
}

/// Half-closed connections through one.
fn half_close_left_alone(
    cgroup: &Cgroup,
    relay: impl Fn(&Stage, &str) -> Result<Server>,
    why: Reason,
) -> Result {
    expect_left_alone(&half_close_through(cgroup, relay)?, why, 0);
    Ok(())
}

fn relay_by_nginx(stage: &Stage, to: &str) -> Result<Server> {
    let blocks = format!(
        "upstream web {{ server {to}; keepalive 8; }}
        proxy_http_version 1.1; proxy_set_header Connection \"\";
        server {{ listen {RELAY};
            location / {{ proxy_pass http://web; }}
            location /through/ {{
                proxy_buffering off; proxy_request_buffering off; proxy_pass http://web/;
            }}
        }}"
    );
    nginx(stage, &stage.proxy, RELAY, &blocks)
}

fn haproxy(stage: &Stage, to: &str, mode: &str) -> Result<Server> {
    let text = format!(
        "global
    nbthread 2
defaults
    {mode}
    timeout connect 20s
    timeout client 20s
    timeout server 20s
frontend front
    bind :{RELAY}
    default_backend back
backend back
    server web {to}
"
    );
    let conf = stage.write("haproxy.cfg", text)?;
    stage.serve(&stage.proxy, RELAY, &["haproxy", "-db", "-f", &conf])
}

fn relay_by_haproxy(stage: &Stage, to: &str) -> Result<Server> {
    haproxy(stage, to, "mode tcp")
}

fn relay_by_splicing_haproxy(stage: &Stage, to: &str) -> Result<Server> {
    haproxy(
        stage,
        to,
        "mode tcp\n    option splice-auto\n    option splice-request\n    option splice-response",
    )
}

fn relay_by_http_haproxy(stage: &Stage, to: &str) -> Result<Server> {
    haproxy(stage, to, "mode http")
}

/// Starts one of our own relays: its command line, then port, host and port.
fn own_relay(stage: &Stage, command: &[&str], to: &str) -> Result<Server> {
    let (port, (host, to)) = (RELAY.to_string(), to.rsplit_once(':').ok_or("host:port")?);
    stage.serve(&stage.proxy, RELAY, &[command, &[&port, host, to]].concat())
}

fn relay_by_node(stage: &Stage, to: &str) -> Result<Server> {
    let file = stage.write("relay.js", source!("relay.js"))?;
    own_relay(stage, &["node", &file], to)
}

fn relay_by_asyncio(stage: &Stage, to: &str) -> Result<Server> {
    let file = stage.write("relay.py", source!("relay.py"))?;
    own_relay(stage, &["/usr/bin/python3", &file, "asyncio"], to)
}

fn relay_by_python_threads(stage: &Stage, to: &str) -> Result<Server> {
    let file = stage.write("relay.py", source!("relay.py"))?;
    own_relay(stage, &["/usr/bin/python3", &file, "threads"], to)
}

fn relay_by_java_threads(stage: &Stage, to: &str) -> Result<Server> {
    let file = stage.write("Relay.java", source!("Relay.java"))?;
    own_relay(stage, &["java", "-Xmx256m", &file, "threads"], to)
}

fn relay_by_java_selector(stage: &Stage, to: &str) -> Result<Server> {
    let file = stage.write("Relay.java", source!("Relay.java"))?;
    own_relay(stage, &["java", "-Xmx256m", &file, "selector"], to)
}

fn relay_by_go(stage: &Stage, to: &str) -> Result<Server> {
    let relay = go(stage, "relay.go", source!("relay.go"))?;
    stage.serve(&stage.proxy, RELAY, &[&relay, &RELAY.to_string(), to])
}

kernel_test! {
    #[ignore = "make test-programs"]
    fn web_through_nginx(cgroup: &Cgroup) -> Result {
        web_redirected(cgroup, relay_by_nginx)
    }

    /// Nothing of a body is kept back, so a slow client holds up the server.
    #[ignore = "make test-programs"]
    fn web_through_nginx_that_does_not_buffer(cgroup: &Cgroup) -> Result {
        let totals = on_both_paths(cgroup, |stage| {
            let web = Web::start(stage, by_nginx)?;
            let relay = relay_by_nginx(stage, &format!("{}:{WEB}", stage.server.ip()))?;
            let seen = web.visit(stage, &format!("http://{}:{RELAY}/through", stage.proxy.ip()))?;
            relay.end_content()?;
            web.end()?;
            Ok(seen)
        })?;
        expect_redirected(&totals, 1 << 20);
        Ok(())
    }

    #[ignore = "make test-programs"]
    fn web_through_haproxy(cgroup: &Cgroup) -> Result {
        web_left_alone(cgroup, relay_by_haproxy, Reason::MaySplice)
    }

    #[ignore = "make test-programs"]
    fn web_through_splicing_haproxy(cgroup: &Cgroup) -> Result {
        web_left_alone(cgroup, relay_by_splicing_haproxy, Reason::MaySplice)
    }

    #[ignore = "make test-programs"]
    fn web_through_http_haproxy(cgroup: &Cgroup) -> Result {
        web_left_alone(cgroup, relay_by_http_haproxy, Reason::MaySplice)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_haproxy(cgroup: &Cgroup) -> Result {
        half_close_left_alone(cgroup, relay_by_haproxy, Reason::MaySplice)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_splicing_haproxy(cgroup: &Cgroup) -> Result {
        half_close_left_alone(cgroup, relay_by_splicing_haproxy, Reason::MaySplice)
    }

    #[ignore = "make test-programs"]
    fn web_through_node(cgroup: &Cgroup) -> Result {
        web_redirected(cgroup, relay_by_node)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_node(cgroup: &Cgroup) -> Result {
        half_close_redirected(cgroup, relay_by_node)
    }

    #[ignore = "make test-programs"]
    fn web_through_asyncio(cgroup: &Cgroup) -> Result {
        web_redirected(cgroup, relay_by_asyncio)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_asyncio(cgroup: &Cgroup) -> Result {
        half_close_redirected(cgroup, relay_by_asyncio)
    }

    #[ignore = "make test-programs"]
    fn web_through_python_threads(cgroup: &Cgroup) -> Result {
        web_left_alone(cgroup, relay_by_python_threads, Reason::Blocking)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_python_threads(cgroup: &Cgroup) -> Result {
        half_close_left_alone(cgroup, relay_by_python_threads, Reason::Blocking)
    }

    #[ignore = "make test-programs"]
    fn web_through_java_threads(cgroup: &Cgroup) -> Result {
        web_left_alone(cgroup, relay_by_java_threads, Reason::Blocking)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_java_threads(cgroup: &Cgroup) -> Result {
        half_close_left_alone(cgroup, relay_by_java_threads, Reason::Blocking)
    }

    #[ignore = "make test-programs"]
    fn web_through_java_selector(cgroup: &Cgroup) -> Result {
        web_redirected(cgroup, relay_by_java_selector)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_java_selector(cgroup: &Cgroup) -> Result {
        half_close_redirected(cgroup, relay_by_java_selector)
    }

    #[ignore = "make test-programs"]
    fn web_through_go(cgroup: &Cgroup) -> Result {
        web_left_alone(cgroup, relay_by_go, Reason::MaySplice)
    }

    #[ignore = "make test-programs"]
    fn half_close_through_go(cgroup: &Cgroup) -> Result {
        half_close_left_alone(cgroup, relay_by_go, Reason::MaySplice)
    }

    fn web_through_tokio(cgroup: &Cgroup) -> Result {
        web_redirected(cgroup, relay_by_tokio)
    }

    fn half_close_through_tokio(cgroup: &Cgroup) -> Result {
        half_close_redirected(cgroup, relay_by_tokio)
    }
}
