//! What the socket path needs beyond the host's checks.

use std::collections::BTreeMap;

use datapath::probe::{
    AttachMode, Attached, Attempt, CgroupMounts, Feature, FionreadReport, Iterators, Program,
    RedirectReport, Refusal, SocketPathReport,
};

use datapath::selftest;

use super::{check, check_attempt};
use crate::cli::doctor::facts::Facts;
use crate::cli::doctor::report::Check;
use crate::selftest::{Consequence, Failed, Report};

pub(super) fn checks(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![
        check("cgroup2", &facts.cgroups, cgroup2).required(),
        root_cgroup(facts).required(),
        check("program and map types", &facts.features, |found| {
            features(found)
        })
        .required(),
        check("programs load", &facts.socket_path, load).required(),
        check("sockets can be listed", &facts.socket_path, iterate).required(),
        check(ITERATORS, &facts.iterators, |found| iterators(found)).required(),
        check("unread bytes", &facts.counts_unread, |counts| {
            unread(*counts)
        }),
        check("a redirect", &facts.redirect, redirect),
        check("FIONREAD", &facts.fionread, fionread),
        check("other programs", &facts.programs, |found| {
            others(found.as_deref())
        }),
        check(SELF_TEST, &facts.self_test, self_test).required(),
    ];
    let failures = facts.self_test.known().map(|report| &report.failures);
    checks.extend(failures.into_iter().flatten().map(failed));
    checks
}

const SELF_TEST: &str = "self-test";

/// Its failures follow, a check each.
fn self_test(report: &Report) -> Check {
    let good = report.checks - report.failures.len();
    let found = format!(
        "{good} of {} checks as plain TCP, in {} ms",
        report.checks, report.milliseconds
    );
    Check::ok(SELF_TEST, found)
}

fn failed(failed: &Failed) -> Check {
    let name = selftest::Check::from_name(&failed.check).map_or(SELF_TEST, selftest::Check::name);
    match failed.consequence {
        Consequence::Stops => Check::missing(
            name,
            &failed.found,
            &format!(
                "{}: do not use the socket path on this kernel, and please report this with the \
                 output of `beeline doctor --json`",
                failed.meaning
            ),
        ),
        Consequence::Limits => Check::degraded(name, &failed.found, &failed.meaning),
    }
}

fn cgroup2(mounts: &CgroupMounts) -> Check {
    const NAME: &str = "cgroup2";
    let Some(v2) = &mounts.v2 else {
        return Check::missing(
            NAME,
            "not mounted",
            "boot with systemd.unified_cgroup_hierarchy=1, or mount it beside version 1: \
             mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified",
        );
    };
    let mut found = format!("mounted at {}", v2.display());
    if !mounts.v1.is_empty() {
        found += &format!(" (hybrid: version 1 has {})", mounts.v1.join(", "));
    }
    Check::ok(NAME, found)
}

/// Whether sock_ops programs at the root of cgroup2 leave room for one more
/// (kernel/bpf/cgroup.c, `__cgroup_bpf_attach` and `hierarchy_allows_attach`).
fn root_cgroup(facts: &Facts) -> Check {
    const NAME: &str = "root cgroup";
    let ours = |id: u32| program(facts, id).is_some_and(Program::is_beeline);
    check(NAME, &facts.attached, |attached| {
        let Some(Attached { ids, mode }) = attached else {
            let advice = "run a kernel built with CONFIG_CGROUP_BPF=y";
            return Check::missing(NAME, "this kernel has no BPF on cgroups", advice);
        };
        let foreign: Vec<_> = ids.iter().copied().filter(|id| !ours(*id)).collect();
        match (foreign.first(), mode) {
            (None, _) => Check::ok(NAME, "no sock_ops program of others"),
            (Some(_), AttachMode::Multi) => Check::ok(
                NAME,
                format!("shared with {} sock_ops programs of others", foreign.len()),
            ),
            (Some(id), AttachMode::Override) => Check::missing(
                NAME,
                format!(
                    "sock_ops program {} allows no other beside it",
                    describe(facts, *id)
                ),
                "have its owner attach it by a BPF link or with BPF_F_ALLOW_MULTI, or cover a \
                 cgroup below: `beeline run --cgroup <DIR>`",
            ),
            (Some(id), AttachMode::Exclusive) => Check::missing(
                NAME,
                format!(
                    "sock_ops program {} allows no other, here or below",
                    describe(facts, *id)
                ),
                "have its owner attach it by a BPF link or with BPF_F_ALLOW_MULTI, or take it off: \
                 bpftool cgroup detach",
            ),
        }
    })
}

fn program(facts: &Facts, id: u32) -> Option<&Program> {
    facts
        .programs
        .known()?
        .as_ref()?
        .iter()
        .find(|program| program.id == id)
}

fn describe(facts: &Facts, id: u32) -> String {
    match program(facts, id) {
        Some(program) => format!("{id} ({})", program.name),
        None => id.to_string(),
    }
}

fn features(features: &[Feature]) -> Check {
    const NAME: &str = "program and map types";
    let named = |supported: bool| {
        let chosen = features
            .iter()
            .filter(|feature| feature.supported == supported);
        chosen
            .map(|feature| feature.name)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let lacking = named(false);
    if lacking.is_empty() {
        return Check::ok(NAME, named(true));
    }
    Check::missing(
        NAME,
        format!("this kernel lacks {lacking}"),
        "run Linux 5.10 or later, built with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and \
         CONFIG_BPF_STREAM_PARSER (sockmaps)",
    )
}

fn load(report: &SocketPathReport) -> Check {
    const NAME: &str = "programs load";
    check_attempt(
        NAME,
        &report.load,
        "the verifier takes sock_ops and sk_msg",
        |words| {
            let advice = "run a later kernel; if this one is recent, please report this with the \
                      output of `beeline doctor --json`";
            Check::missing(NAME, words, advice)
        },
    )
}

fn iterate(report: &SocketPathReport) -> Check {
    const NAME: &str = "sockets can be listed";
    let works = "the program that reports them loads and runs";
    let Some(attempt) = &report.iterate else {
        return Check::not_tried(NAME, "programs that load");
    };
    check_attempt(NAME, attempt, works, |words| {
        let advice = "`beeline conns` and `beeline detach` need it: run Linux 5.17 or later";
        Check::missing(NAME, words, advice)
    })
}

const ITERATORS: &str = "iterators load";

/// Of several that do not load, one that stops the path decides what it means.
fn iterators(tried: &[(Iterators, Attempt)]) -> Check {
    // By the kernel's words, which are often the same.
    let mut refused = BTreeMap::<&str, Vec<Iterators>>::new();
    for (one, attempt) in tried {
        if let Attempt::Refused(Refusal {
            error, objection, ..
        }) = attempt
        {
            let words = objection.as_ref().unwrap_or(error);
            refused.entry(words).or_default().push(*one);
        }
    }
    let all = || refused.values().flatten().map(|one| without(*one));
    let Some(worst) = all().find(Result::is_err).or_else(|| all().next()) else {
        let names: Vec<_> = tried.iter().map(|(one, _)| one.name()).collect();
        return Check::ok(ITERATORS, names.join(", "));
    };
    let found = refused.iter().map(|(words, these)| {
        let names: Vec<_> = these.iter().map(|one| one.name()).collect();
        format!("{}: {words}", names.join(", "))
    });
    let found = found.collect::<Vec<_>>().join("; ");
    match worst {
        Ok(limit) => Check::degraded(ITERATORS, found, limit),
        Err(advice) => Check::missing(ITERATORS, found, advice),
    }
}

/// What the socket path is without an object of iterators: limited, or not to be started.
fn without(one: Iterators) -> Result<&'static str, &'static str> {
    match one {
        Iterators::Programs => {
            Err("it could not be known which programs splice: run Linux 5.15 or later")
        }
        Iterators::Retire | Iterators::Release | Iterators::Threads => {
            Err("`beeline retire` and `beeline detach` need them: run Linux 5.15 or later")
        }
        Iterators::Adopt | Iterators::Earlier => Ok(
            "live connections are not adopted: those that blocked when they were made, and those from \
             before the agent, stay on the kernel path",
        ),
        Iterators::Tidy => {
            Ok("what is known of a socket may stay when the kernel does not tell of its end")
        }
        Iterators::Holders => Ok("`beeline conns` cannot tell which process has a socket"),
        Iterators::Keepalive => Ok(
            "NAT may forget connections whose data is redirected for longer than connection tracking \
             remembers",
        ),
    }
}

fn unread(counts: Option<bool>) -> Check {
    const NAME: &str = "unread bytes";
    match counts {
        Some(true) => Check::ok(NAME, "the kernel counts what waits at a reader"),
        Some(false) => Check::degraded(
            NAME,
            "the kernel does not count what waits at a reader (no sk_psock.msg_tot_len): what was \
             sent since its queue was last seen empty stands for it",
            "a reader that reads on but never catches up reaches the queue limit early: its sender \
             is left to the kernel path until it does, at that path's speed",
        ),
        None => Check::not_tried(NAME, "kernel types"),
    }
}

fn redirect(report: &RedirectReport) -> Check {
    const NAME: &str = "a redirect";
    match report {
        RedirectReport::Delivered(fionread) => redirected_fionread(NAME, fionread),
        RedirectReport::Refused(refusal) => no_sockmap(NAME, refusal),
        RedirectReport::NotDelivered(why) => Check::missing(
            NAME,
            format!("a message between two sockets of `doctor` was not delivered: {why}"),
            "do not use the socket path on this kernel, and please report this with the output of \
             `beeline doctor --json`",
        ),
    }
}

fn redirected_fionread(name: &'static str, fionread: &FionreadReport) -> Check {
    let said = match fionread {
        FionreadReport::Counts => {
            return Check::ok(name, "delivers, and FIONREAD counts what is unread");
        }
        FionreadReport::Zero => "0 for what is unread".into(),
        FionreadReport::Other { waiting, said } => format!("{said} for {waiting} bytes unread"),
        FionreadReport::NotTaken(refusal) => return no_sockmap(name, refusal),
    };
    Check::missing(
        name,
        format!("delivers, but FIONREAD says {said}"),
        "a program that asks FIONREAD before it reads would stall on a redirected connection: run a \
         kernel from 6.6.128, 6.12.75 or 6.18.14 of their series on",
    )
}

fn no_sockmap(name: &'static str, refusal: &Refusal) -> Check {
    Check::missing(
        name,
        format!("refused: {refusal}"),
        "run a kernel built with CONFIG_BPF_STREAM_PARSER=y (sockmaps)",
    )
}

fn fionread(report: &FionreadReport) -> Check {
    const NAME: &str = "FIONREAD";
    let other = |said: u64, waiting: &str| {
        Check::ok(
            NAME,
            format!(
                "says {said} for {waiting} that took the kernel path to a socket in a plain sockmap, as \
                 6.6.128, 6.12.75, 6.18.14, 6.19 and later of their series do; Beeline's sockets have \
                 one queue for both paths, see the self-test"
            ),
        )
    };
    match report {
        FionreadReport::Counts => Check::ok(NAME, "counts kernel-path data in a sockmap"),
        FionreadReport::Zero => other(0, "bytes"),
        FionreadReport::Other { waiting, said } => other(*said, &format!("{waiting} bytes")),
        FionreadReport::NotTaken(refusal) => no_sockmap(NAME, refusal),
    }
}

fn others(programs: Option<&[Program]>) -> Check {
    const NAME: &str = "other programs";
    let Some(programs) = programs else {
        return Check::not_tried(NAME, "CAP_SYS_ADMIN");
    };
    let list = |of_ours: bool| {
        let chosen = programs
            .iter()
            .filter(|program| program.is_beeline() == of_ours);
        let described = chosen.map(|p| format!("{} {} ({})", p.kind.name(), p.id, p.name));
        described.collect::<Vec<_>>().join(", ")
    };
    let (ours, foreign) = (list(true), list(false));
    let ours = if ours.is_empty() {
        ours
    } else {
        format!("; loaded of ours: {ours}")
    };
    if foreign.is_empty() {
        return Check::ok(
            NAME,
            format!("no sock_ops or sk_msg program of others{ours}"),
        );
    }
    Check::degraded(
        NAME,
        format!("{foreign}{ours}"),
        "sockets that these put into a sockmap stay on the kernel path (reason foreign_sockmap); \
         `bpftool prog show` and `bpftool cgroup tree` tell whose they are",
    )
}
