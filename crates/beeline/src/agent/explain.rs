//! Answering `beeline explain` with the rules in force.

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use datapath::Maps;
use datapath::abi::{EndRecord, Program, Reason, Verdict};
use datapath::ends::Ends;
use datapath::programs::Programs;
use datapath::rules::{Known, Opinion, Ruling};

use super::rules::Rules;
use crate::config::Rule;
use crate::explain::{Answer, EndExplained, Explained, Party, Question, RuleNamed, Who};
use crate::observe::conns::{self, Name};
use crate::workload::{Workloads, container, units};

/// An end with what people call its facts.
struct End {
    known: Known,
    executable: Option<String>,
    facts: Vec<(String, String)>,
    now: Option<String>,
}

pub(super) fn answer(rules: &Rules, maps: &Maps, question: &Question) -> Answer {
    let answered = match question {
        Question::Between(client, server) => between(rules, maps, client, server),
        Question::Live(name) => live(rules, maps, name),
    };
    answered.map_or_else(
        |error| Answer::Refused {
            why: format!("{error:#}"),
        },
        |explained| Answer::Explained(Box::new(explained)),
    )
}

fn between(rules: &Rules, maps: &Maps, client: &Party, server: &Party) -> Result<Explained> {
    let (mut client, mut server) = (find(rules, maps, client)?, find(rules, maps, server)?);
    // Without NAT, which nobody can know, each sees the other's own address.
    let peers = (server.known, client.known);
    for (own, peer) in [(&mut client, peers.0), (&mut server, peers.1)] {
        own.known.remote_ip = peer.local_ip;
        own.known.remote_port = peer.local_port;
    }
    explain(rules, maps, client, server)
}

fn live(rules: &Rules, maps: &Maps, name: &str) -> Result<Explained> {
    let wanted: Name = name.parse()?;
    let ends = Ends::load(maps)?.list(maps)?;
    let listed = conns::of(
        &ends,
        &Workloads::find(&rules.look(|host| host.containers.names())),
    );
    let mut named = listed.iter().filter(|conn| conn.has(wanted));
    let (Some(conn), others) = (named.next(), named.count()) else {
        bail!("no connection {wanted} is enrolled: name both its ends to learn what the rules say");
    };
    if others > 0 {
        bail!(
            "{} connections are {wanted}: name one by its cookie (conns --json)",
            others + 1
        );
    }
    let find = |own| ends.iter().find(|end| end.end.own == own);
    let records = (find(conn.handshake), find(conn.handshake.mirror()));
    let (Some(client), Some(server)) = records else {
        bail!("one end of the connection {wanted} is closed already");
    };
    let programs = Programs::load(maps, |_| false)?.running()?;
    let programs: HashMap<Program, PathBuf> = programs.into_iter().collect();
    let end = |record: &EndRecord, shown: Option<&conns::End>| {
        let executable = programs.get(&record.end.program);
        let executable = executable.map(|path| path.display().to_string());
        let known = Known::of(record);
        let workload = shown.map(|end| end.workload.clone()).unwrap_or_default();
        End {
            facts: facts(
                rules,
                &known,
                workload.cgroup.as_deref(),
                executable.as_deref(),
            ),
            executable,
            now: shown.map(|end| match end.reason {
                Some(reason) => format!("{} ({reason})", end.path),
                None => end.path.into(),
            }),
            known,
        }
    };
    let (client, server) = (
        end(client, conn.client.as_ref()),
        end(server, conn.server.as_ref()),
    );
    explain(rules, maps, client, server)
}

/// What can be found out about somebody.
fn find(rules: &Rules, maps: &Maps, party: &Party) -> Result<End> {
    let mut known = Known {
        local_ip: party.ip,
        local_port: party.port,
        ..Known::default()
    };
    let (mut cgroup, mut executable) = (None, None);
    match &party.who {
        Some(Who::Pid(pid)) => {
            let path = format!("/proc/{pid}");
            let status =
                fs::metadata(&path).with_context(|| format!("there is no process {pid}"))?;
            known.uid = Some(status.uid());
            known.program = Programs::load(maps, |_| false)?.of(*pid)?;
            let text = fs::read_to_string(format!("{path}/cgroup"))?;
            let own = text.lines().find_map(|line| line.strip_prefix("0::"));
            cgroup = own.map(str::to_owned);
            let link = fs::read_link(format!("{path}/exe")).ok();
            executable = link.map(|path| path.display().to_string());
        }
        Some(who) => cgroup = Some(cgroup_of(rules, who)?),
        None => {}
    }
    if let Some(path) = &cgroup {
        let dir = testbed::cgroup2_mount()?.join(path.trim_start_matches('/'));
        let meta = fs::metadata(&dir).with_context(|| format!("there is no cgroup {path}"))?;
        known.cgroup = Some(meta.ino());
    }
    Ok(End {
        facts: facts(rules, &known, cgroup.as_deref(), executable.as_deref()),
        known,
        executable,
        now: None,
    })
}

fn cgroup_of(rules: &Rules, who: &Who) -> Result<String> {
    let found = rules.look(|host| {
        let is_it = |path: &str| match who {
            Who::Cgroup(wanted) => path == wanted,
            Who::Container(wanted) => container(path).is_some_and(|id| {
                let told = host.containers.get(id);
                id.starts_with(wanted.as_str()) || told.is_some_and(|told| told.name == *wanted)
            }),
            Who::Unit(name) => units(path).next() == Some(name) && path.ends_with(name.as_str()),
            Who::Pid(_) => false,
        };
        let found = host.cgroups.values().filter(|path| is_it(path));
        // The outermost of those inside.
        found.min_by_key(|path| path.len()).cloned()
    });
    found.with_context(|| format!("there is no {who} where Beeline is attached"))
}

/// In the words of rules.
fn facts(
    rules: &Rules,
    known: &Known,
    cgroup: Option<&str>,
    executable: Option<&str>,
) -> Vec<(String, String)> {
    let unit = cgroup.and_then(|path| units(path).next());
    let id = cgroup.and_then(container);
    let at = match (known.local_ip, known.local_port) {
        (Some(ip), Some(port)) => Some(SocketAddr::new(ip, port).to_string()),
        (Some(ip), None) => Some(ip.to_string()),
        (None, port) => port.map(|port| format!(":{port}")),
    };
    let fact = |name: &'static str, value: Option<String>| value.map(|value| (name, value));
    let mut facts = vec![
        fact("cgroup", cgroup.map(str::to_owned)),
        fact("unit", unit.map(str::to_owned)),
        fact("container", id.map(str::to_owned)),
    ];
    if let Some(id) = id {
        facts.extend(told(rules, id).into_iter().map(Some));
    }
    facts.extend([
        fact("executable", executable.map(str::to_owned)),
        fact("uid", known.uid.map(|uid| uid.to_string())),
        fact("address", at),
    ]);
    let known = facts.into_iter().flatten();
    known
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// What sources told of a container: its name, its pod, and of its labels those that rules ask for.
fn told(rules: &Rules, id: &str) -> Vec<(&'static str, String)> {
    let Some(told) = rules.look(|host| host.containers.get(id).cloned()) else {
        return Vec::new();
    };
    let mut facts = vec![("container", told.name.clone())];
    if let Some(pod) = told.pod() {
        facts.push(("pod", format!("{}/{}", pod.namespace, pod.name)));
    }
    for key in rules.labels() {
        if let Some(value) = told.labels.get(&key) {
            facts.push(("labels", format!("{key}={value}")));
        }
    }
    facts
}

fn explain(rules: &Rules, maps: &Maps, client: End, server: End) -> Result<Explained> {
    let (ruling, [said, answered]) = rules.rule(&client.known, &server.known);
    let splices = [splices(maps, &client)?, splices(maps, &server)?];
    let may_splice = splices.iter().any(Option::is_some);
    let reason = ruling.reason.or(may_splice.then_some(Reason::MaySplice));
    let [connecting, listening] = splices;
    Ok(Explained {
        path: path(&ruling, reason).into(),
        reason: reason.map(|reason| reason.name().into()),
        client: end(client, ruling.client, said, connecting),
        server: end(server, ruling.server, answered, listening),
    })
}

/// The program of this end, if it may splice from its sockets.
fn splices(maps: &Maps, end: &End) -> Result<Option<String>> {
    let verdict = end.known.program.map(|program| maps.verdict(program));
    if verdict.transpose()? != Some(Verdict::MaySplice) {
        return Ok(None);
    }
    let path = end.executable.as_deref();
    Ok(Some(path.unwrap_or("a program that has ended").into()))
}

fn path(ruling: &Ruling, reason: Option<Reason>) -> &'static str {
    match reason {
        Some(_) => "kernel",
        None if ruling.depends() => "depends",
        None => "socket",
    }
}

fn end(end: End, opinion: Opinion, rule: Option<Rule>, may_splice: Option<String>) -> EndExplained {
    let says = match opinion {
        Opinion::None => "nothing",
        Opinion::Socket(_) => "socket",
        Opinion::Kernel(_) => "kernel",
        Opinion::Depends(_) => "depends",
        Opinion::UnknownWorkload | Opinion::UnknownProgram => "unknown",
    };
    EndExplained {
        says: says.into(),
        rule: rule.map(|rule| RuleNamed {
            place: rule.place.to_string(),
            text: rule.asks(),
            name: rule.name,
        }),
        facts: end.facts,
        may_splice,
        now: end.now,
    }
}
