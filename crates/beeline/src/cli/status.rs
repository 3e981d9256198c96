//! `beeline status`

use std::process::ExitCode;

use anyhow::Result;
use datapath::abi::Reason;

use super::output;
use crate::instance::Instance;
use crate::observe::status::{self, Costs, Status, Work};
use crate::selftest::Report;

/// Say whether the datapath is on, and what it did. Exits with 1 when it is off.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Tell what it costs as well: time and size of the BPF programs, watched for a second, and memory of
    /// the maps
    #[arg(short, long)]
    verbose: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let mut status = status::read(instance)?;
    if args.verbose {
        status = status.with_costs(instance)?;
    }
    if args.json {
        output::json(&status)?;
    } else {
        print(&status)?;
    }
    Ok(if status.on {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(status: &Status) -> Result<()> {
    output::line(&headline(status))?;
    match &status.agent {
        Some(agent) => output::line(&format!(
            "agent        process {}, version {}",
            agent.pid, agent.version
        ))?,
        None => output::line("agent        not running")?,
    }
    if let Some(page) = status.agent.as_ref().and_then(|agent| agent.page.as_ref()) {
        output::line(&format!("page         {page}"))?;
    }
    let capabilities = status.agent.as_ref().map(|agent| &agent.capabilities);
    if let Some(names) = capabilities.filter(|names| !names.is_empty()) {
        output::line(&format!("capabilities {}", names.join(" ")))?;
    }
    for line in status.self_test.iter().flat_map(output::self_test) {
        output::line(&line)?;
    }
    if let Some(work) = &status.work {
        print_work(work)?;
    }
    match &status.costs {
        Some(costs) => print_costs(costs),
        None => Ok(()),
    }
}

fn print_costs(costs: &Costs) -> Result<()> {
    let mut programs = output::table(&[
        "program",
        "runs a second",
        "ns a run",
        "instructions verified",
        "code",
    ]);
    for program in &costs.programs {
        programs.add_row([
            program.name.clone(),
            format!("{:.0}", program.runs as f64 / costs.watched_seconds),
            program.run_ns.map_or("-".into(), |ns| ns.to_string()),
            program.verified_instructions.to_string(),
            output::bytes(program.code_bytes as u64),
        ]);
    }
    let mut maps = output::table(&["map", "elements", "room for", "memory"]);
    for map in &costs.maps {
        maps.add_row([
            map.name.into(),
            map.entries.map_or("-".into(), |count| count.to_string()),
            map.limit.to_string(),
            output::bytes(map.memory_bytes),
        ]);
    }
    for table in [programs, maps] {
        output::line("")?;
        output::line(&table.trim_fmt())?;
    }
    Ok(())
}

fn headline(status: &Status) -> String {
    let since = status.since.as_deref().unwrap_or("?");
    let refused = status
        .self_test
        .as_ref()
        .and_then(Report::obstacle)
        .is_some();
    match (status.mode, &status.cgroup) {
        (None, _) if refused => {
            "Beeline is off: the last start was refused, see the self-test".into()
        }
        (None, _) => "Beeline is off: nothing is loaded (start it: beeline run)".into(),
        (Some("on"), Some(cgroup)) => format!("Beeline is on: attached to {cgroup} since {since}"),
        (Some("detaching"), _) => "Beeline is detaching: no new connections are enrolled (finish \
                                   it: beeline detach; take it back: beeline run)"
            .into(),
        _ => format!(
            "Beeline is off: loaded since {since}, but not attached (attach it: beeline run)"
        ),
    }
}

fn print_work(work: &Work) -> Result<()> {
    output::line(&format!(
        "connections  {} enrolled now, {} ever (room for {})",
        work.connections, work.connections_ever, work.connections_max
    ))?;
    output::line(&format!(
        "redirected   {} in {} messages",
        output::bytes(work.redirected_bytes),
        work.redirected_messages
    ))?;
    output::line(&format!(
        "kernel path  {} by enrolled connections",
        output::bytes(work.kernel_bytes)
    ))?;
    let used = work
        .tcp_memory_bytes
        .map(|used| format!("{} in use of ", output::bytes(used)));
    output::line(&format!(
        "memory       {}{} of TCP on this host; {} unread at one reader",
        used.unwrap_or_default(),
        output::bytes(work.memory_limit_bytes),
        output::bytes(work.queue_limit_bytes)
    ))?;
    if work.reasons.is_empty() {
        return Ok(());
    }
    output::line("left on, or moved to, the kernel path:")?;
    let mut table = output::table(&["  count", "reason", "meaning"]);
    for reason in Reason::ALL {
        if let Some(count) = work.reasons.get(reason.name()) {
            table.add_row([
                format!("  {count}"),
                reason.name().into(),
                reason.about().into(),
            ]);
        }
    }
    output::line(&table.trim_fmt())
}
