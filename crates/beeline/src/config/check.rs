//! What a file says, setting by setting; a mistake does not hide the next one.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;
use super::mistake::{File, Mistake};
use super::rules::RULE;
use super::setting::{Origin, Unfit, Wrong};

/// Below that two words have nothing to do with each other.
const ALIKE: f64 = 0.8;

/// Sets what the file says, and returns what is wrong with it in the order of its lines.
pub(super) fn apply(config: &mut Config, file: &Arc<File>) -> Vec<Mistake> {
    let (root, errors) = DeTable::parse_recoverable(&file.text);
    let mut reader = Reader {
        config,
        file,
        mistakes: Vec::new(),
    };
    for error in &errors {
        let end = file.text.len();
        reader.syntax(error.message(), error.span().unwrap_or(end..end));
    }
    reader.table("", root.get_ref());
    let mut mistakes = reader.mistakes;
    mistakes.sort_by_key(|mistake| mistake.span.start);
    mistakes
}

pub(super) struct Reader<'a> {
    pub(super) config: &'a mut Config,
    pub(super) file: &'a Arc<File>,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    /// `prefix` is empty for the root, else the name of the table and a dot.
    fn table(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            let name = format!("{prefix}{}", key.get_ref());
            match value.get_ref() {
                _ if name == RULE => self.rules(value),
                DeValue::Table(inner) if is_table(&name) => self.table(&format!("{name}."), inner),
                _ => self.setting(&name, key.span(), value),
            }
        }
    }

    fn setting(&mut self, name: &str, key: Range<usize>, value: &Spanned<DeValue<'_>>) {
        let origin = Origin::File {
            file: self.file.path.clone(),
            line: self.file.line(key.start),
        };
        match self.config.set(name, value, origin) {
            Some(Ok(())) => {}
            Some(Err(unfit)) => self.unfit(name, example(name), unfit),
            None if is_table(name) => self.no_table(name, value),
            None => self.unknown(name, key),
        }
    }

    pub(super) fn unfit(&mut self, name: &str, example: &str, unfit: Unfit) {
        let unread = |wrong: &Wrong| !self.is_told(&wrong.span);
        let wrong: Vec<_> = unfit.wrong.into_iter().filter(unread).collect();
        for wrong in wrong {
            let hint = wrong
                .hint
                .unwrap_or_else(|| format!("for example: {} = {example}", last(name)));
            self.tell(
                wrong.span,
                format!("`{name}` cannot be {}", wrong.found),
                format!("expected {}", unfit.expected),
                Some(hint),
            );
        }
    }

    fn no_table(&mut self, name: &str, value: &Spanned<DeValue<'_>>) {
        self.tell(
            value.span(),
            format!("`{name}` is a table"),
            "expected its settings".into(),
            Some(format!(
                "write [{name}] on a line of its own, and its settings below"
            )),
        );
    }

    fn unknown(&mut self, name: &str, key: Range<usize>) {
        self.tell(
            key,
            format!("unknown setting `{name}`"),
            format!("expected {}", list(&neighbours(name))),
            similar(name).map(|key| meant(name, key)),
        );
    }

    fn syntax(&mut self, message: &str, span: Range<usize>) {
        let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
        let duplicate = what == "duplicate key";
        let expected = match expected {
            "" if duplicate => "expected every setting and table once in a file".into(),
            "" => "expected TOML".into(),
            _ => format!("expected {expected}"),
        };
        let hint = duplicate.then(|| "remove one; of two files the later one decides".into());
        self.tell(span, what.into(), expected, hint);
    }

    /// What is no TOML has no value either.
    fn is_told(&self, span: &Range<usize>) -> bool {
        let mut told = self.mistakes.iter().map(|mistake| &mistake.span);
        told.any(|told| told.start <= span.end && span.start <= told.end)
    }

    pub(super) fn tell(
        &mut self,
        span: Range<usize>,
        what: String,
        expected: String,
        hint: Option<String>,
    ) {
        let file = self.file.clone();
        self.mistakes.push(Mistake {
            file,
            span,
            what,
            expected,
            hint,
        });
    }
}

fn keys() -> impl Iterator<Item = &'static str> {
    Config::EXAMPLES.iter().map(|(key, _)| *key)
}

fn is_table(name: &str) -> bool {
    keys().any(|key| {
        key.strip_prefix(name)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

fn example(name: &str) -> &'static str {
    let found = Config::EXAMPLES.iter().find(|(key, _)| *key == name);
    found.map_or("", |(_, example)| example)
}

/// What may stand where `name` is, settings or tables.
fn neighbours(name: &str) -> Vec<&'static str> {
    let prefix = &name[..name.len() - last(name).len()];
    let rests = keys().filter_map(|key| key.strip_prefix(prefix));
    let mut names: Vec<_> = rests
        .map(|rest| rest.split('.').next().unwrap_or(rest))
        .chain(prefix.is_empty().then_some(RULE))
        .collect();
    names.dedup();
    names
}

/// The setting or table that was meant, wherever it belongs; rather one of the same table.
fn similar(name: &str) -> Option<&'static str> {
    let tables = keys().filter_map(|key| Some(key.split_once('.')?.0));
    let is_beside = |key: &str| table_of(key) == table_of(name);
    keys()
        .chain(tables)
        .chain([RULE])
        .filter_map(|key| Some((is_beside(key), alike(last(key), last(name))?, key)))
        .max_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)))
        .map(|(_, _, key)| key)
}

/// How much alike two words are, if they are at all.
pub(super) fn alike(a: &str, b: &str) -> Option<f64> {
    Some(strsim::jaro_winkler(a, b)).filter(|likeness| *likeness >= ALIKE)
}

fn meant(name: &str, key: &str) -> String {
    match key.split_once('.') {
        _ if table_of(name) == table_of(key) && !is_table(key) && key != RULE => {
            format!("did you mean `{}`?", last(key))
        }
        Some((table, setting)) => format!("did you mean `{setting}` in [{table}]?"),
        None if key == RULE => "did you mean [[rule]]?".into(),
        None if is_table(key) => format!("did you mean the table [{key}]?"),
        None => format!("did you mean `{key}`, above all tables?"),
    }
}

fn table_of(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(table, _)| table)
}

pub(super) fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

pub(super) fn list(names: &[&str]) -> String {
    let quoted: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".into(),
    }
}
