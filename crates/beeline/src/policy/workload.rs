//! Whether a workload is what a rule asks for.

use crate::config::{Ask, AskPod, Labels, Name};
use crate::workload::{Container, Containers, container, is_id_or_short, short, units};

/// Whether a rule asks for workloads at all.
pub(super) fn asks(ask: &Ask) -> bool {
    !(ask.cgroup.is_empty() && ask.unit.is_empty() && ask.container.is_empty()) || asks_sources(ask)
}

/// Whether it asks for something that cgroups do not tell.
pub(super) fn asks_sources(ask: &Ask) -> bool {
    let is_name = |name: &Name| !is_id_or_short(name.as_str()) && name.as_str() != "*";
    !(ask.labels.is_empty() && ask.pod.is_empty()) || ask.container.iter().any(is_name)
}

/// Whether a cgroup is what is asked for, in every respect; `None` as long as that depends on what nobody
/// told of its container.
pub(super) fn is_in(ask: &Ask, cgroup: &str, known: &Containers) -> Option<bool> {
    let is_there = ask.cgroup.is_empty() || ask.cgroup.iter().any(|one| one.match_path(cgroup));
    let has_unit = ask.unit.is_empty() || units(cgroup).any(|unit| is_named(&ask.unit, unit));
    let id = container(cgroup);
    let told = id.and_then(|id| known.get(id));
    let of_container = [
        is_container(&ask.container, id, told),
        is_labelled(&ask.labels, id, told),
        is_in_pod(&ask.pod, id, told),
    ];
    if !is_there || !has_unit || of_container.contains(&Some(false)) {
        return Some(false);
    }
    of_container
        .into_iter()
        .collect::<Option<Vec<bool>>>()
        .map(|_| true)
}

fn is_named(names: &[Name], name: &str) -> bool {
    names.iter().any(|one| one.matches(name))
}

fn is_container(names: &[Name], id: Option<&str>, told: Option<&Container>) -> Option<bool> {
    let has_id = |id| is_named(names, id) || is_named(names, short(id));
    if names.is_empty() || id.is_some_and(has_id) {
        return Some(true);
    }
    // What can be an id is none of a name, as in Docker's own commands.
    let mut names = names
        .iter()
        .filter(|one| !is_id_or_short(one.as_str()))
        .peekable();
    if id.is_none() || names.peek().is_none() {
        return Some(false);
    }
    told.map(|told| names.any(|one| one.matches(&told.name)))
}

fn is_labelled(labels: &Labels, id: Option<&str>, told: Option<&Container>) -> Option<bool> {
    match id {
        _ if labels.is_empty() => Some(true),
        None => Some(false),
        Some(_) => told.map(|told| labels.match_all(&told.labels)),
    }
}

fn is_in_pod(ask: &AskPod, id: Option<&str>, told: Option<&Container>) -> Option<bool> {
    let is_it = |told: &Container| {
        told.pod().is_some_and(|pod| {
            let all = [(&ask.namespace, pod.namespace), (&ask.name, pod.name)];
            all.iter()
                .all(|(names, own)| names.is_empty() || is_named(names, own))
        })
    };
    match id {
        _ if ask.is_empty() => Some(true),
        None => Some(false),
        Some(_) => told.map(is_it),
    }
}
