//! The report for people: a line for each check, aligned, and a verdict for each path.

use std::ffi::OsStr;
use std::fmt::Write;

use super::report::{Check, Report, Status};

/// How to mark things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// Text only.
    Plain,
    /// With ANSI colours.
    Colours,
}

impl Style {
    /// Colours on a terminal, unless `NO_COLOR` says otherwise (no-color.org).
    pub(super) fn of(is_terminal: bool, no_color: Option<&OsStr>) -> Self {
        let refused = no_color.is_some_and(|value| !value.is_empty());
        if is_terminal && !refused {
            Self::Colours
        } else {
            Self::Plain
        }
    }

    fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Colours => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }
}

const GREEN: &str = "32";
const YELLOW: &str = "33";
const RED: &str = "31";
const BOLD: &str = "1";

/// The whole report.
pub(super) fn human(report: &Report, style: Style) -> String {
    let paths = report.paths.values().map(|path| (path.title, &path.checks));
    let groups: Vec<_> = [("Host", &report.host.checks)]
        .into_iter()
        .chain(paths)
        .chain([("Optional", &report.optional.checks)])
        .collect();
    let names = groups
        .iter()
        .flat_map(|(_, checks)| checks.iter().map(|check| check.name.len()));
    let width = names.max().unwrap_or(0);
    let mut text = String::new();
    for (title, checks) in groups {
        text += &format!("{}\n", style.paint(BOLD, title));
        for check in checks {
            line(&mut text, check, width, style);
        }
        text.push('\n');
    }
    for path in report.paths.values() {
        let name = path.title.to_lowercase();
        text += &match &path.cause {
            None => format!("The {name} can run.\n"),
            Some(cause) => format!("The {name} cannot run: {cause}.\n"),
        };
    }
    text
}

fn line(text: &mut String, check: &Check, width: usize, style: Style) {
    let (mark, colour) = match check.status {
        Status::Ok => ("ok", GREEN),
        Status::Degraded | Status::Refused | Status::NotTried => ("--", YELLOW),
        Status::Missing | Status::Unknown => ("!!", RED),
    };
    let mark = style.paint(colour, mark);
    let _ = writeln!(text, "  {mark}  {:width$}  {}", check.name, check.found);
    if let Some(advice) = &check.advice {
        // Under what was found: two spaces, the mark, two spaces, the name, two spaces.
        let indent = 2 + 2 + 2 + width + 2;
        let _ = writeln!(text, "{:indent$}-> {advice}", "");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::report::{Group, PathReport};

    fn report(checks: Vec<Check>) -> Report {
        let path = PathReport::new("Socket path", &[], checks);
        Report {
            kernel: "6.18.0".into(),
            architecture: "x86_64",
            host: Group {
                checks: vec![Check::ok("kernel", "6.18.0")],
            },
            paths: [("socket_path", path)].into(),
            optional: Group {
                checks: vec![Check::refused("LSM", "refused (optional)")],
            },
        }
    }

    #[test]
    fn lines_are_aligned_and_the_last_one_is_the_verdict() {
        let text = human(&report(vec![Check::ok("sk_msg", "works")]), Style::Plain);
        let expected = "Host\n  ok  kernel  6.18.0\n\n\
                        Socket path\n  ok  sk_msg  works\n\n\
                        Optional\n  --  LSM     refused (optional)\n\n\
                        The socket path can run.\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_missing_has_its_advice_below_and_in_the_verdict() {
        let missing = Check::missing("cgroup2", "not mounted", "mount it");
        let text = human(&report(vec![missing]), Style::Plain);
        assert!(
            text.contains("  !!  cgroup2  not mounted\n               -> mount it\n"),
            "{text}"
        );
        assert!(
            text.ends_with("The socket path cannot run: cgroup2: not mounted; mount it.\n"),
            "{text}"
        );
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        assert_eq!(Style::of(true, None), Style::Colours);
        assert_eq!(Style::of(true, Some("".as_ref())), Style::Colours);
        assert_eq!(Style::of(true, Some("1".as_ref())), Style::Plain);
        assert_eq!(Style::of(false, None), Style::Plain);
        let text = human(&report(vec![]), Style::Colours);
        assert!(text.contains("\x1b[32mok\x1b[0m"), "{text}");
    }
}
