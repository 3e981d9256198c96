//! What Docker's Engine API says, and Podman in the same words
//! (<https://docs.docker.com/reference/api/engine/>, `ContainerList` and `SystemEvents`).

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::workload::container::is_id;
use crate::workload::containers::Container;

/// All containers, also those that do not run yet.
pub(super) const ALL: &str = "/containers/json?all=true";

/// What happens to containers: `{"type":["container"]}`.
pub(super) const EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22container%22%5D%7D";

/// One container, in a list: `{"id":["<id>"]}`.
pub(super) fn one(id: &str) -> String {
    format!("{ALL}&filters=%7B%22id%22%3A%5B%22{id}%22%5D%7D")
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
    names: Option<Vec<String>>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Told {
    #[serde(rename = "Action")]
    action: String,
    #[serde(rename = "Actor")]
    actor: Actor,
}

#[derive(Deserialize)]
struct Actor {
    #[serde(rename = "ID")]
    id: String,
}

/// Something that happened to the container with this id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It was made, or another may be known of it than before.
    Look(String),
    /// It is no more.
    Gone(String),
}

/// The containers of a list. One without a name is being removed, and is left out.
pub(super) fn containers(list: &[u8]) -> serde_json::Result<HashMap<String, Container>> {
    let listed: Vec<Listed> = serde_json::from_slice(list)?;
    let known = listed.into_iter().filter(|one| is_id(&one.id));
    let known = known.filter_map(|one| {
        let container = Container {
            name: name(&one.names?)?,
            labels: one.labels.unwrap_or_default(),
        };
        Some((one.id, container))
    });
    Ok(known.collect())
}

/// A name has a slash in front, and one more if it is what a linked container calls this one.
fn name(names: &[String]) -> Option<String> {
    let own = |name: &String| Some(name.strip_prefix('/')?.to_owned());
    let mut own = names.iter().filter_map(own);
    own.find(|name| !name.is_empty() && !name.contains('/'))
}

/// What lines tell.
pub(super) fn events(lines: &[u8]) -> serde_json::Result<Vec<Event>> {
    let mut events = Vec::new();
    for told in serde_json::Deserializer::from_slice(lines).into_iter::<Told>() {
        let Told { action, actor } = told?;
        match action.as_str() {
            _ if !is_id(&actor.id) => {}
            "create" | "start" | "rename" => events.push(Event::Look(actor.id)),
            // Docker says the one, Podman the other.
            "destroy" | "remove" => events.push(Event::Gone(actor.id)),
            _ => {}
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_has_its_own_name_and_no_link() {
        let id = "0123456789abcdef".repeat(4);
        let list = format!(
            r#"[{{"Id":"{id}","Names":["/web/db","/db"],"Image":"x","Labels":{{"app":"shop"}}}},
                {{"Id":"{id}0","Names":["/no-id"]}},
                {{"Id":"{}","Names":null,"Labels":null}}]"#,
            id.replace('0', "f")
        );
        let found = containers(list.as_bytes()).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[&id].name, "db");
        assert_eq!(found[&id].labels["app"], "shop");
    }

    #[test]
    fn nonsense_is_no_list() {
        for text in ["", "{}", "[1]", "null", r#"[{"Id":7}]"#, "<html>"] {
            assert!(containers(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn both_daemons_tell_of_removal() {
        let id = "0123456789abcdef".repeat(4);
        let event = |action: &str| {
            format!(
                "{{\"Type\":\"container\",\"Action\":\"{action}\",\"Actor\":{{\"ID\":\"{id}\"}}}}\n"
            )
        };
        let lines: String = [
            "create",
            "exec_start: sh",
            "start",
            "die",
            "destroy",
            "remove",
        ]
        .map(event)
        .concat();
        let (look, gone) = (Event::Look(id.clone()), Event::Gone(id.clone()));
        let found = events(lines.as_bytes()).unwrap();
        assert_eq!(
            found,
            [look, Event::Look(id.clone()), gone, Event::Gone(id)]
        );
        assert!(events(b"").unwrap().is_empty());
        assert!(events(b"no event\n").is_err());
    }
}
