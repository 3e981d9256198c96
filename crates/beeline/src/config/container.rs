//! What a rule asks of containers that only others than the kernel know: labels, and pods.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::Reader;
use super::kinds::{nothing, one_or_more, quoted, string, wrong, wrong_type};
use super::rule::{Name, list};
use super::rules::{EXPECTED_NAMES, pattern};
use super::setting::{Unfit, Wrong};

/// What may be asked of a pod: its name, and an example.
pub(super) const POD: [(&str, &str); 2] = [("namespace", "\"shop\""), ("name", "\"web-*\"")];

const EXPECTED_LABELS: &str =
    "a table of keys and values, in which * and ? stand for other characters";

/// For each key that a container has to be labelled with, the values of which its own must be one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels(pub(super) BTreeMap<String, Vec<Name>>);

impl Labels {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether a container with these labels is one of those asked for.
    #[must_use]
    pub fn match_all(&self, labels: &BTreeMap<String, String>) -> bool {
        let has = |(key, values): (&String, &Vec<Name>)| {
            let own = labels.get(key);
            own.is_some_and(|own| values.iter().any(|one| one.matches(own)))
        };
        self.0.iter().all(has)
    }

    pub(super) fn toml(&self) -> Option<String> {
        table(
            self.0
                .iter()
                .filter_map(|(key, values)| list(&toml_key(key), values)),
        )
    }
}

/// As TOML has it in front of a `=`.
fn toml_key(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if !key.is_empty() && key.chars().all(is_bare) {
        return key.to_owned();
    }
    quoted(key)
}

/// Something of every list that is not empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AskPod {
    /// Namespaces.
    pub namespace: Vec<Name>,
    /// Names.
    pub name: Vec<Name>,
}

impl AskPod {
    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.namespace.is_empty() && self.name.is_empty()
    }

    pub(super) fn toml(&self) -> Option<String> {
        let fields = [list("namespace", &self.namespace), list("name", &self.name)];
        table(fields.into_iter().flatten())
    }
}

fn table(fields: impl Iterator<Item = String>) -> Option<String> {
    let fields: Vec<_> = fields.collect();
    (!fields.is_empty()).then(|| format!("{{ {} }}", fields.join(", ")))
}

fn labels(fields: &DeTable<'_>) -> Result<Labels, Vec<Wrong>> {
    let (mut labels, mut bad) = (BTreeMap::new(), Vec::new());
    for (key, value) in fields {
        let read = match value.get_ref() {
            DeValue::Table(inner) => Err(vec![dotted(key.get_ref(), inner, value)]),
            _ => one_or_more(value, label),
        };
        match read {
            Ok(values) => drop(labels.insert(key.get_ref().to_string(), values)),
            Err(wrong) => bad.extend(wrong),
        }
    }
    if bad.is_empty() {
        Ok(Labels(labels))
    } else {
        Err(bad)
    }
}

/// Labels may be empty.
fn label(value: &Spanned<DeValue<'_>>) -> Result<Name, Wrong> {
    match string(value)? {
        "" => Ok(Name(glob::Pattern::default())),
        _ => pattern(value),
    }
}

/// To TOML, dots without quotes are tables.
fn dotted(key: &str, inner: &DeTable<'_>, value: &Spanned<DeValue<'_>>) -> Wrong {
    let mut whole = key.to_owned();
    let mut inner = Some(inner);
    while let Some((key, value)) = inner.and_then(|table| table.iter().next()) {
        whole = format!("{whole}.{}", key.get_ref());
        inner = match value.get_ref() {
            DeValue::Table(inner) => Some(inner),
            _ => None,
        };
    }
    Wrong {
        hint: Some(format!(
            "keys with dots need quotes: {} = \"...\"",
            quoted(&whole)
        )),
        ..wrong_type(value)
    }
}

/// `key=value`, as command lines have it.
fn as_table(text: &str) -> String {
    let (key, value) = text.split_once('=').unwrap_or((text, "*"));
    format!("{{ {} = {} }}", toml_key(key), quoted(value))
}

impl Reader<'_> {
    pub(super) fn labels(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> Labels {
        let read = || match value.get_ref() {
            DeValue::Table(fields) if fields.is_empty() => Err(vec![nothing(value, "table")]),
            DeValue::Table(fields) => labels(fields),
            DeValue::String(text) => Err(vec![Wrong {
                hint: Some(format!("for example: labels = {}", as_table(text))),
                ..wrong(value, quoted(text))
            }]),
            _ => Err(vec![wrong_type(value)]),
        };
        self.read(name, "{ app = \"shop\" }", EXPECTED_LABELS, read)
            .unwrap_or_default()
    }

    pub(super) fn pod(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> AskPod {
        let mut pod = AskPod::default();
        let fields = match value.get_ref() {
            DeValue::Table(fields) if !fields.is_empty() => fields,
            other => {
                let wrong = match other {
                    DeValue::Table(_) => nothing(value, "table"),
                    _ => wrong_type(value),
                };
                let (wrong, expected) = (vec![wrong], "a table of `namespace`, `name` or both");
                self.unfit(name, "{ namespace = \"shop\" }", Unfit { wrong, expected });
                return pod;
            }
        };
        for (key, value) in fields {
            let name = format!("{name}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "namespace" => pod.namespace = self.all(&name, value, EXPECTED_NAMES, pattern),
                "name" => pod.name = self.all(&name, value, EXPECTED_NAMES, pattern),
                "labels" => self.tell(
                    key.span(),
                    format!("unknown field `{name}`"),
                    "expected `namespace` or `name`".into(),
                    Some("labels of pods are not known yet; those of containers are `labels`, beside `pod`".into()),
                ),
                _ => self.no_field(&name, key.span(), &POD.map(|(name, _)| name)),
            }
        }
        pod
    }
}
