//! `beeline explain`

use std::process::ExitCode;

use anyhow::{Context, Result};

use super::{ask, output};
use crate::control::Request;
use crate::explain::{Answer, EndExplained, Explained, Party, Question};
use crate::instance::Instance;
use crate::observe::conns::Name;

/// Say which path a connection takes, and which rule with its file and line decides that.
///
/// Either of a connection that exists, as `beeline conns` shows it, or of one that CLIENT would make to
/// SERVER. The running agent answers, with the rules in force. What a rule asks for and nobody said,
/// such as the port of a client, is not guessed: then the answer is that it depends.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// A CONNECTION, by an address of either end or the cookie of either socket (conns --json); or,
    /// with SERVER, who connects: pid:NUMBER, container:NAME, unit:NAME or cgroup:PATH, an address as
    /// 10.0.0.2, 10.0.0.2:5432 or :5432, or both with @ in between
    #[arg(value_name = "CONNECTION|CLIENT")]
    first: String,

    /// Who listens, in the same words
    server: Option<Party>,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(instance: &Instance, args: &Args) -> Result<ExitCode> {
    let question = match &args.server {
        Some(server) => Question::Between(parse(&args.first)?, server.clone()),
        None => {
            parse::<Name>(&args.first)?;
            Question::Live(args.first.clone())
        }
    };
    let answer = ask::agent(instance, Request::Explain { question })?
        .context("the agent cannot explain: it is of an earlier version, restart it")?;
    match answer {
        Answer::Explained(explained) if args.json => output::json(&explained)?,
        Answer::Explained(explained) => tell(&explained)?,
        Answer::Refused { why } => {
            eprintln!("error: {why}");
            return Ok(ExitCode::FAILURE);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn parse<T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    text: &str,
) -> Result<T> {
    text.parse()
        .with_context(|| format!("cannot explain {text}"))
}

fn tell(explained: &Explained) -> Result<()> {
    let path = match (explained.path.as_str(), &explained.reason) {
        ("socket", _) => "socket path, if both ends are local and nothing makes it unsafe".into(),
        ("depends", _) => "it depends on what is not known of the ends".into(),
        (_, Some(reason)) => format!("kernel path: {reason}"),
        (other, None) => format!("{other} path"),
    };
    output::line(&path)?;
    for (role, end) in [("client", &explained.client), ("server", &explained.server)] {
        end_lines(role, end)
            .iter()
            .try_for_each(|line| output::line(line))?;
    }
    Ok(())
}

fn end_lines(role: &str, end: &EndExplained) -> Vec<String> {
    let facts = end
        .facts
        .iter()
        .map(|(name, value)| format!("{name} {value}"));
    let facts = facts.collect::<Vec<_>>().join(", ");
    let mut lines = vec![format!("{role}  {facts}")];
    let says = match end.says.as_str() {
        "nothing" => "no rule matches".to_owned(),
        "unknown" => "it is not known yet which rules concern it".to_owned(),
        "depends" => "may match, for want of facts:".to_owned(),
        says => format!("{says}, says"),
    };
    lines.push(match &end.rule {
        Some(rule) => {
            let name = rule.name.as_ref().map(|name| format!(" \"{name}\""));
            format!(
                "        {says} rule{} at {}: {}",
                name.unwrap_or_default(),
                rule.place,
                rule.text
            )
        }
        None => format!("        {says}"),
    });
    let splices = end.may_splice.as_ref();
    lines.extend(splices.map(|program| format!("        may call splice(2): {program}")));
    lines.extend(
        end.now
            .as_ref()
            .map(|now| format!("        sends over: {now}")),
    );
    lines
}
