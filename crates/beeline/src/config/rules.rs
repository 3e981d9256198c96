//! Reading `[[rule]]`.

use std::ops::Range;

use datapath::abi::MAX_RULES;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::{Reader, alike, last, list};
use super::container::POD;
use super::kinds::{
    Adopt, Executables, QueueLimit, one_or_more, quoted, string, wrong, wrong_type,
};
use super::rule::{Ask, Cgroups, Name, Network, Outcome, Place, Ports, Rule};
use super::setting::{Kind, Unfit, Wrong};

/// The name of the list in a file.
pub(super) const RULE: &str = "rule";

const FIELDS: [&str; 6] = ["name", "path", "adopt", "queue_limit", "local", "remote"];

/// What may be asked of an end: its name, and an example.
const ASKED: [(&str, &str); 9] = [
    ("cgroup", "\"/system.slice/*\""),
    ("unit", "\"nginx.service\""),
    ("container", "\"web-*\""),
    ("labels", "{ app = \"shop\" }"),
    ("pod", "{ namespace = \"shop\" }"),
    ("executable", "\"/usr/sbin/nginx\""),
    ("uid", "[33, 999]"),
    ("cidr", "\"10.0.0.0/8\""),
    ("port", "[443, \"8000-8099\"]"),
];

impl Kind for Outcome {
    const EXPECTED: &'static str = "\"socket\", \"kernel\" or \"auto\"";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        match string(value)? {
            "socket" => Ok(Self::Socket),
            "kernel" => Ok(Self::Kernel),
            "auto" => Ok(Self::Auto),
            "packet" => Err(vec![Wrong {
                hint: Some(
                    "this version has no packet path: write \"kernel\" to leave these connections alone, or \
                     \"auto\" for the shortest path that there is"
                        .into(),
                ),
                ..wrong(value, quoted("packet"))
            }]),
            other => Err(vec![wrong(value, quoted(other))]),
        }
    }

    fn write(&self) -> String {
        quoted(self.name())
    }
}

impl Reader<'_> {
    /// Rules come behind those of earlier files.
    pub(super) fn rules(&mut self, value: &Spanned<DeValue<'_>>) {
        let DeValue::Array(rules) = value.get_ref() else {
            return self.no_rule(value);
        };
        for rule in rules.iter() {
            match rule.get_ref() {
                DeValue::Table(fields) => self.rule(fields, rule.span()),
                _ => self.no_rule(rule),
            }
        }
    }

    fn no_rule(&mut self, value: &Spanned<DeValue<'_>>) {
        self.tell(
            value.span(),
            "`rule` is a list of tables".into(),
            "expected tables".into(),
            Some("write [[rule]] on a line of its own, and what it asks below".into()),
        );
    }

    fn rule(&mut self, fields: &DeTable<'_>, span: Range<usize>) {
        let mut rule = Rule {
            name: None,
            path: Outcome::Auto,
            adopt: None,
            queue_limit: None,
            local: Ask::default(),
            remote: Ask::default(),
            place: Place {
                file: self.file.path.clone(),
                line: self.file.line(span.start),
            },
        };
        for (key, value) in fields {
            let name = key.get_ref().as_ref();
            match name {
                "name" => {
                    rule.name = self.read("rule.name", "\"databases\"", "a string", || {
                        Ok(string(value)?.to_owned())
                    });
                }
                "path" => {
                    let read = || Outcome::read(value);
                    let path = self.read("rule.path", "\"kernel\"", Outcome::EXPECTED, read);
                    rule.path = path.unwrap_or(Outcome::Auto);
                }
                "adopt" => {
                    let read = || Adopt::read(value);
                    rule.adopt = self.read("rule.adopt", "false", Adopt::EXPECTED, read);
                }
                "queue_limit" => {
                    let (expected, read) = (QueueLimit::EXPECTED, || QueueLimit::read(value));
                    rule.queue_limit = self.read("rule.queue_limit", "\"1MiB\"", expected, read);
                }
                "local" => rule.local = self.ask("rule.local", value),
                "remote" => rule.remote = self.ask("rule.remote", value),
                _ => self.no_field(&format!("rule.{name}"), key.span(), &FIELDS),
            }
        }
        if !fields.contains_key("path") {
            self.tell(
                span.clone(),
                "a rule without `path`".into(),
                format!("expected path = {}", Outcome::EXPECTED),
                Some("for example: path = \"kernel\"".into()),
            );
        }
        for name in ["adopt", "queue_limit"] {
            let found = fields.get_key_value(name);
            if let (Outcome::Kernel, Some((key, _))) = (rule.path, found) {
                self.tell(
                    key.span(),
                    format!("`rule.{name}` beside path = \"kernel\""),
                    "expected path = \"socket\" or \"auto\"".into(),
                    Some(
                        "the rule never touches a connection, so it has nothing to say here".into(),
                    ),
                );
            }
        }
        if self.config.rules.len() == MAX_RULES {
            self.tell(
                span,
                format!("more than {MAX_RULES} rules"),
                "expected fewer".into(),
                Some("a field takes a list: one rule can name many".into()),
            );
        }
        self.config.rules.push(rule);
    }

    fn ask(&mut self, end: &str, value: &Spanned<DeValue<'_>>) -> Ask {
        let mut ask = Ask::default();
        let DeValue::Table(fields) = value.get_ref() else {
            let read = || Err::<(), _>(vec![wrong_type(value)]);
            self.read(end, "{ port = 5432 }", "a table of what it asks", read);
            return ask;
        };
        for (key, value) in fields {
            let name = format!("{end}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "cgroup" => ask.cgroup = self.all(&name, value, EXPECTED_CGROUP, cgroups),
                "unit" => ask.unit = self.all(&name, value, EXPECTED_UNIT, unit),
                "container" => ask.container = self.all(&name, value, EXPECTED_CONTAINER, pattern),
                "labels" => ask.labels = self.labels(&name, value),
                "pod" => ask.pod = self.pod(&name, value),
                "executable" => {
                    ask.executable = self.all(&name, value, EXPECTED_PATH, Executables::read);
                }
                "uid" => ask.uid = self.all(&name, value, "a user id, or an array of them", uid),
                "cidr" => ask.cidr = self.all(&name, value, EXPECTED_NETWORK, network),
                "port" => ask.port = self.all(&name, value, EXPECTED_PORT, ports),
                _ => self.no_field(&name, key.span(), &ASKED.map(|(name, _)| name)),
            }
        }
        ask
    }

    /// One value or an array of them.
    pub(super) fn all<T>(
        &mut self,
        name: &str,
        value: &Spanned<DeValue<'_>>,
        expected: &'static str,
        one: impl Fn(&Spanned<DeValue<'_>>) -> Result<T, Wrong>,
    ) -> Vec<T> {
        let asked = ASKED
            .iter()
            .chain(&POD)
            .find(|(field, _)| *field == last(name));
        let example = asked.map_or("", |(_, example)| example);
        self.read(name, example, expected, || one_or_more(value, one))
            .unwrap_or_default()
    }

    pub(super) fn read<T>(
        &mut self,
        name: &str,
        example: &str,
        expected: &'static str,
        read: impl FnOnce() -> Result<T, Vec<Wrong>>,
    ) -> Option<T> {
        read()
            .map_err(|wrong| self.unfit(name, example, Unfit { wrong, expected }))
            .ok()
    }

    pub(super) fn no_field(&mut self, name: &str, key: Range<usize>, fields: &[&str]) {
        let similar = fields.iter().max_by(|a, b| {
            let likeness = |field: &str| alike(field, last(name));
            likeness(a)
                .unwrap_or(0.0)
                .total_cmp(&likeness(b).unwrap_or(0.0))
        });
        let similar = similar.filter(|field| alike(field, last(name)).is_some());
        self.tell(
            key,
            format!("unknown field `{name}`"),
            format!("expected {}", list(fields)),
            similar.map(|field| format!("did you mean `{field}`?")),
        );
    }
}

const EXPECTED_CGROUP: &str = "a path from the root of cgroup2, in which * and ? stand for other \
                               characters and ** for directories, or an array of them";
const EXPECTED_UNIT: &str = "the name of a unit, in which * and ? stand for other characters, or an \
                             array of them";
const EXPECTED_CONTAINER: &str = "the name or id of a container, in which * and ? stand for other \
                                  characters, or an array of them";
pub(super) const EXPECTED_NAMES: &str =
    "a name in which * and ? stand for other characters, or an array of them";
const EXPECTED_PATH: &str =
    "an absolute path, in which * and ? stand for other characters, or an array of them";
const EXPECTED_NETWORK: &str = "a network or an IP address, or an array of them";
const EXPECTED_PORT: &str = "a port number, a range such as \"8000-8099\", or an array of them";

fn glob(value: &Spanned<DeValue<'_>>) -> Result<glob::Pattern, Wrong> {
    let text = string(value)?;
    if text.is_empty() {
        return Err(wrong(value, quoted(text)));
    }
    glob::Pattern::new(text).map_err(|error| Wrong {
        hint: Some(format!("it is no pattern: {error}")),
        ..wrong(value, quoted(text))
    })
}

fn cgroups(value: &Spanned<DeValue<'_>>) -> Result<Cgroups, Wrong> {
    let text = string(value)?;
    let starts = "paths begin at the root of cgroup2, as `beeline conns --json` shows them";
    if !text.starts_with('/') || text.starts_with("/sys/fs/cgroup") {
        return Err(Wrong {
            hint: Some(starts.into()),
            ..wrong(value, quoted(text))
        });
    }
    glob(value).map(Cgroups)
}

fn unit(value: &Spanned<DeValue<'_>>) -> Result<Name, Wrong> {
    let text = string(value)?;
    let kinds = [".service", ".scope", ".slice", "*"];
    if !kinds.iter().any(|kind| text.ends_with(kind)) {
        return Err(Wrong {
            hint: Some(format!(
                "with its suffix: {}",
                quoted(&format!("{text}.service"))
            )),
            ..wrong(value, quoted(text))
        });
    }
    pattern(value)
}

pub(super) fn pattern(value: &Spanned<DeValue<'_>>) -> Result<Name, Wrong> {
    glob(value).map(Name)
}

fn uid(value: &Spanned<DeValue<'_>>) -> Result<u32, Wrong> {
    number(value)
}

fn network(value: &Spanned<DeValue<'_>>) -> Result<Network, Wrong> {
    let text = string(value)?;
    Network::read(text).map_err(|hint| Wrong {
        hint,
        ..wrong(value, quoted(text))
    })
}

fn ports(value: &Spanned<DeValue<'_>>) -> Result<Ports, Wrong> {
    match value.get_ref() {
        DeValue::String(text) => Ports::read(text).ok_or_else(|| wrong(value, quoted(text))),
        _ => number(value).map(|port: u16| Ports(port..=port)),
    }
}

fn number<T: TryFrom<u64>>(value: &Spanned<DeValue<'_>>) -> Result<T, Wrong> {
    let DeValue::Integer(number) = value.get_ref() else {
        return Err(wrong_type(value));
    };
    let read = u64::from_str_radix(number.as_str(), number.radix()).ok();
    read.and_then(|number| T::try_from(number).ok())
        .ok_or_else(|| wrong(value, number.to_string()))
}
