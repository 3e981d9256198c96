//! A judged report: checks in groups, and what they mean for each path.

use std::collections::BTreeMap;

use serde::Serialize;

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Status {
    /// As it should be.
    Ok,
    /// A path runs, with a limit that is worth knowing.
    Degraded,
    /// A path cannot run like this.
    Missing,
    /// The kernel refuses what no path needs.
    Refused,
    /// Not tried, because this process may not.
    NotTried,
    /// Tried, and it was not possible to find out.
    Unknown,
}

/// One line of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub(super) name: &'static str,
    pub(super) status: Status,
    /// What was found.
    pub(super) found: String,
    /// What to do about it, or what it means; none where all is well.
    pub(super) advice: Option<String>,
    /// Whether a path must know that this is right before it can run.
    pub(super) required: bool,
}

impl Check {
    pub(super) fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found.into(), None)
    }

    pub(super) fn degraded(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self::new(name, Status::Degraded, found.into(), Some(advice.into()))
    }

    /// Stops the path, whether or not the check is required.
    pub(super) fn missing(name: &'static str, found: impl Into<String>, advice: &str) -> Self {
        Self::new(name, Status::Missing, found.into(), Some(advice.into()))
    }

    pub(super) fn refused(name: &'static str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Refused, found.into(), None)
    }

    pub(super) fn not_tried(name: &'static str, needs: &str) -> Self {
        let advice = match needs {
            "root" => "run `beeline doctor` as root",
            _ => "see what is missing above",
        };
        let found = format!("not tried: needs {needs}");
        Self::new(name, Status::NotTried, found, Some(advice.into()))
    }

    pub(super) fn unknown(name: &'static str, error: &str) -> Self {
        let advice = "this should not happen: see whether /proc and /sys are mounted and lo is up";
        Self::new(
            name,
            Status::Unknown,
            format!("cannot find out: {error}"),
            Some(advice.into()),
        )
    }

    fn new(name: &'static str, status: Status, found: String, advice: Option<String>) -> Self {
        Self {
            name,
            status,
            found,
            advice,
            required: false,
        }
    }

    /// The path must not run without knowing that this is right.
    pub(super) fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    fn stops(&self) -> bool {
        match self.status {
            Status::Ok | Status::Degraded | Status::Refused => false,
            Status::Missing => true,
            Status::NotTried | Status::Unknown => self.required,
        }
    }

    /// The check in one sentence's part, for the last line of the report.
    fn as_cause(&self) -> String {
        let advice = self.advice.as_deref().unwrap_or("see above");
        format!("{}: {}; {advice}", self.name, self.found)
    }
}

/// Checks that belong together.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Group {
    pub(super) checks: Vec<Check>,
}

/// What one path needs beyond what every path needs of the host.
#[derive(Debug, Clone, Serialize)]
pub(super) struct PathReport {
    /// The name for people.
    #[serde(skip)]
    pub(super) title: &'static str,
    pub(super) can_run: bool,
    /// The first thing that stops it.
    pub(super) cause: Option<String>,
    pub(super) checks: Vec<Check>,
}

impl PathReport {
    /// A path can run if nothing of the host's checks and of its own stops it.
    pub(super) fn new(title: &'static str, host: &[Check], checks: Vec<Check>) -> Self {
        let cause = host
            .iter()
            .chain(&checks)
            .find(|check| check.stops())
            .map(Check::as_cause);
        Self {
            title,
            can_run: cause.is_none(),
            cause,
            checks,
        }
    }
}

/// Everything that `doctor` says.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Report {
    pub(super) kernel: String,
    pub(super) architecture: &'static str,
    pub(super) host: Group,
    /// By the key that the path has in JSON.
    #[serde(flatten)]
    pub(super) paths: BTreeMap<&'static str, PathReport>,
    pub(super) optional: Group,
}

impl Report {
    /// Whether the path that makes `beeline run` worth while can run.
    pub(super) fn can_run(&self) -> bool {
        self.paths
            .get(super::rules::SOCKET_PATH)
            .is_some_and(|path| path.can_run)
    }
}
