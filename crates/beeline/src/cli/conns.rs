//! `beeline conns`

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use datapath::Maps;

use super::rows::Rows;
use super::{filter, output};
use crate::instance::Instance;
use crate::observe::conns::End;
use crate::observe::picture::Camera;
use crate::observe::rates::{Live, Meter};
use crate::observe::sort::Sort;

/// Between the two looks that rates need.
const SECOND: Duration = Duration::from_secs(1);

/// List the connections that are enrolled, and those that have left, oldest first.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What comes first; rates need two looks, a second apart
    #[arg(long, value_enum, value_name = "ORDER", default_value = "age")]
    sort: Sort,

    /// What comes first comes last
    #[arg(long)]
    reverse: bool,

    /// Show at most so many, and say how many there are
    #[arg(long, value_name = "NUMBER")]
    limit: Option<usize>,

    /// Print a JSON list
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    filter: filter::ConnFilter,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let all = look(instance, args.sort)?;
    let (count, filter) = (all.len(), args.filter.filter());
    let mut shown = all;
    shown.retain(|live| filter.shows(&live.conn));
    args.sort.apply(&mut shown, args.reverse);
    let fitting = shown.len();
    shown.truncate(args.limit.unwrap_or(usize::MAX));
    if args.json {
        return json(&shown, args.sort).map(|()| ExitCode::SUCCESS);
    }
    match (count, fitting) {
        (0, _) => output::line("no connections are enrolled")?,
        (_, 0) => output::line(&format!("none of {count} enrolled connections fits"))?,
        _ => print(&shown, args.sort.needs_rates())?,
    }
    if shown.len() < fitting {
        output::line(&format!("and {} more", fitting - shown.len()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn look(instance: &Instance, sort: Sort) -> Result<Vec<Live>> {
    let maps = Maps::open(&instance.pins())?;
    let (mut camera, mut meter) = (Camera::new(instance, &maps)?, Meter::default());
    let first = camera.look(&maps)?;
    if !sort.needs_rates() {
        return Ok(first.conns.into_iter().map(Live::from).collect());
    }
    meter.measure(first, Instant::now());
    thread::sleep(SECOND);
    Ok(meter.measure(camera.look(&maps)?, Instant::now()).live)
}

/// Rates that were not measured are not there.
fn json(shown: &[Live], sort: Sort) -> Result<()> {
    if sort.needs_rates() {
        return output::json(&shown);
    }
    let conns: Vec<_> = shown.iter().map(|live| &live.conn).collect();
    output::json(&conns)
}

fn print(shown: &[Live], rates: bool) -> Result<()> {
    let mut header = vec![
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
    ];
    if rates {
        header.extend(["BYTES/S", "BYTES/S BACK"]);
    }
    let mut rows = Rows::new(&header);
    for live in shown {
        let mut row = row(live);
        if rates {
            row.extend(
                [live.client_rate, live.server_rate].map(|rate| output::bytes(rate.bytes() as u64)),
            );
        }
        rows.add(&row);
    }
    output::rows(&rows)
}

fn row(live: &Live) -> Vec<String> {
    let conn = &live.conn;
    let (client, server) = (conn.client.as_ref(), conn.server.as_ref());
    let end = |end: Option<&End>, show: fn(&End) -> String| end.map_or("closed".into(), show);
    let age = Duration::from_secs(conn.age_seconds as u64);
    let reasons: Vec<_> = conn.ends().filter_map(|e| e.reason).collect();
    vec![
        end(client, |e| e.workload.label()),
        end(client, |e| e.local.to_string()),
        end(server, |e| e.workload.label()),
        end(server, |e| e.local.to_string()),
        end(client, |e| e.path.into()),
        end(client, |e| output::bytes(e.bytes())),
        end(server, |e| e.path.into()),
        end(server, |e| output::bytes(e.bytes())),
        humantime::format_duration(age).to_string(),
        if reasons.is_empty() {
            "-".into()
        } else {
            reasons.join(", ")
        },
    ]
}
