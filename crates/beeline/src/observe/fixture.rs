//! Connections for unit tests.

use datapath::abi::Handshake;

use super::conns::{Connection, End};
use super::rates::{Live, Rate, Trend};
use crate::workload::Workload;

/// A redirected one from 10.0.0.1 to 10.0.0.2:6379, a second old; `id` is the client's port offset, too.
pub fn connection(id: u32, client: &str, server: &str) -> Connection {
    let port = 40_000 + u16::try_from(id).expect("a small number");
    let (local, remote) = (format!("10.0.0.1:{port}"), "10.0.0.2:6379".to_string());
    Connection {
        handshake: Handshake {
            snd_nxt: id,
            rcv_nxt: id,
        },
        client: Some(end(client, &local, &remote)),
        server: Some(end(server, &remote, &local)),
        age_seconds: 1.0,
    }
}

fn end(command: &str, local: &str, remote: &str) -> End {
    End {
        local: local.parse().expect("an address"),
        remote: remote.parse().expect("an address"),
        workload: Workload {
            pid: Some(42),
            command: Some(command.into()),
            cgroup: Some(format!("/{command}.slice")),
            container: None,
        },
        netns: 1,
        uid: 0,
        cookie: 7,
        path: "socket",
        reason: None,
        redirected_bytes: 0,
        redirected_messages: 0,
        kernel_bytes: 0,
        unread_bytes: 0,
        smoothed_rtt_us: 0,
        tally: None,
    }
}

/// Redirected connections between those clients and servers, the first one the slowest.
pub fn live(conns: &[(&str, &str)]) -> Vec<Live> {
    let live = |(place, (client, server)): (usize, &(&str, &str))| {
        let client_rate = Rate {
            redirected_bytes: 1024.0 * (place + 1) as f64,
            redirected_messages: 10.0,
            kernel_bytes: 0.0,
        };
        Live {
            conn: connection(u32::try_from(place).expect("few"), client, server),
            client_rate,
            server_rate: Rate::default(),
            trend: Trend::from([0, 512, client_rate.redirected_bytes as u64]),
        }
    };
    conns.iter().enumerate().map(live).collect()
}
