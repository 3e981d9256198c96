//! `beeline conns`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use datapath::Maps;

use super::output;
use crate::instance::Instance;
use crate::observe::conns::{self, Connection, End};

/// List the connections that are enrolled, oldest first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Print a JSON list
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let conns = conns::list(&Maps::open(&instance.pins())?)?;
    if args.json {
        output::json(&conns)?;
    } else if conns.is_empty() {
        output::line("no connections are enrolled")?;
    } else {
        print(&conns)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn print(conns: &[Connection]) -> Result<()> {
    let mut table = output::table(&[
        "CLIENT",
        "ADDRESS",
        "SERVER",
        "ADDRESS",
        "PATH",
        "BYTES",
        "PATH BACK",
        "BYTES BACK",
        "AGE",
        "REASON",
    ]);
    for conn in conns {
        table.add_row(row(conn));
    }
    output::line(&table.trim_fmt())
}

fn row(conn: &Connection) -> Vec<String> {
    let (client, server) = (conn.client.as_ref(), conn.server.as_ref());
    let end = |end: Option<&End>, show: fn(&End) -> String| end.map_or("closed".into(), show);
    let age = Duration::from_secs(conn.age_seconds as u64);
    let reasons: Vec<_> = [client, server]
        .into_iter()
        .flatten()
        .filter_map(|e| e.reason)
        .collect();
    vec![
        end(client, |e| e.workload.label()),
        end(client, |e| e.local.to_string()),
        end(server, |e| e.workload.label()),
        end(server, |e| e.local.to_string()),
        end(client, |e| e.path.into()),
        end(client, sent),
        end(server, |e| e.path.into()),
        end(server, sent),
        humantime::format_duration(age).to_string(),
        if reasons.is_empty() {
            "-".into()
        } else {
            reasons.join(", ")
        },
    ]
}

fn sent(end: &End) -> String {
    output::bytes(end.redirected_bytes + end.kernel_bytes)
}
