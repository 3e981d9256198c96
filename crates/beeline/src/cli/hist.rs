//! `beeline hist`

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use datapath::Maps;
use datapath::abi::Hist;
use serde_json::json;

use super::{output, plot};
use crate::control;
use crate::instance::Instance;
use crate::observe::conns::{self, Connection, End, Name};
use crate::observe::hist::{self, View, views};
use crate::observe::picture::Camera;

/// Print histograms of the host, of pairs of workloads or of single connections.
///
/// Sizes of messages on either path, bytes that waited at the reader when a message was redirected,
/// round trips of the kernel path, handshakes and lives of connections. Each bar stands for values up
/// to its bound and above half of it. Which are kept is a setting, [observe] histograms.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Connections as `beeline conns` shows them: an ADDRESS of either end, which names every
    /// connection that has it, or the cookie of either socket (conns --json), which names one
    #[arg(value_name = "CONNECTION")]
    connections: Vec<Name>,

    /// Each pair of workloads by itself, by the cgroups or containers that their sockets were made in
    #[arg(long, conflicts_with = "connections")]
    pairs: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let maps = Maps::open(&instance.pins())?;
    if !args.connections.is_empty() {
        let all = Camera::with_histograms(instance, &maps)?.look(&maps)?.conns;
        let chosen = conns::named(&all, &args.connections)?;
        of_connections(&chosen, args.json)?;
    } else if args.pairs {
        of_pairs(instance, &maps, args.json)?;
    } else {
        let host = views(&hist::look(&maps)?.host().histograms);
        if args.json {
            output::json(&host)?;
        } else {
            print(&host)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn of_connections(chosen: &[Connection], as_json: bool) -> Result<()> {
    let sent = |end: &End| views(&end.histograms());
    if as_json {
        let end = |end: &Option<End>| {
            end.as_ref().map(|end| {
                json!({
                    "local": end.local, "remote": end.remote, "workload": end.workload,
                    "cookie": end.cookie, "sent": sent(end),
                })
            })
        };
        let list = chosen
            .iter()
            .map(|conn| json!({ "client": end(&conn.client), "server": end(&conn.server) }));
        return output::json(&list.collect::<Vec<_>>());
    }
    for conn in chosen {
        for (role, end) in [("client", &conn.client), ("server", &conn.server)] {
            let Some(end) = end else { continue };
            output::line(&format!(
                "sent by the {role} {}, {} to {}\n",
                end.workload.label(),
                end.local,
                end.remote
            ))?;
            print(&sent(end))?;
        }
    }
    Ok(())
}

fn of_pairs(instance: &Instance, maps: &Maps, as_json: bool) -> Result<()> {
    let pairs = hist::pairs(&hist::look(maps)?, &control::names(instance));
    if as_json {
        return output::json(&pairs);
    }
    for pair in pairs {
        output::line(&format!(
            "from {} to {}, {} connections now\n",
            pair.client, pair.server, pair.connections
        ))?;
        print(&pair.histograms)?;
    }
    Ok(())
}

fn print(counted: &BTreeMap<&str, View>) -> Result<()> {
    for kind in Hist::ALL {
        if let Some(view) = counted.get(kind.name()) {
            output::line(&format!("{}: {}", kind.name(), view.about))?;
            output::line(&plot::text(view))?;
        }
    }
    if counted.is_empty() {
        output::line("nothing was counted\n")?;
    }
    Ok(())
}
