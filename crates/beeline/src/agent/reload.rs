//! Putting another configuration in force while the agent serves.

use std::fmt;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail};
use datapath::Maps;
use datapath::abi::Settings;
use tracing::{info, warn};

use super::explain;
use super::rules::Rules;

use crate::config::{Config, Described, Sources};
use crate::control::{Changed, Reloaded};
use crate::explain::{Answer, Question};
use crate::instance::Instance;
use crate::policy::Policy;

/// What a reload is made for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    Request,
    Signal,
    Files,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Request => "`beeline reload`",
            Self::Signal => "SIGHUP",
            Self::Files => "a change of the configuration's files",
        })
    }
}

/// The configuration in force, and where it came from.
pub(super) struct Live {
    instance: Instance,
    sources: Sources,
    config: Mutex<Config>,
    rules: Rules,
}

impl Live {
    pub(super) fn new(instance: Instance, config: Config, sources: Sources, rules: Rules) -> Self {
        Self {
            instance,
            sources,
            config: Mutex::new(config),
            rules,
        }
    }

    pub(super) fn instance(&self) -> &Instance {
        &self.instance
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    /// A copy of what is in force now.
    pub(super) fn config(&self) -> Config {
        self.lock().clone()
    }

    /// Says which path a connection takes, and why.
    pub(super) fn explain(&self, question: &Question) -> Answer {
        match Maps::open(&self.instance.pins()) {
            Ok(maps) => explain::answer(&self.rules, &maps, question),
            Err(error) => Answer::Refused {
                why: error.to_string(),
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, Config> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the configuration comes from.
    pub(super) fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Reads the sources again. One update of one map puts all in force that can change. Who asks
    /// meanwhile waits for their turn. The log tells what changed, or why nothing did.
    pub(super) fn reload(&self, cause: Cause) -> Reloaded {
        match self.replace() {
            Ok((changed, excluded)) => {
                log(cause, &changed, excluded);
                Reloaded::InForce { changed, excluded }
            }
            Err(error) => {
                let why = format!("{error:#}");
                warn!("not reloaded on {cause}, the old settings stay in force: {why}");
                Reloaded::Refused { why }
            }
        }
    }

    /// Waits for the reload that goes on, if one does, and lets no other begin: who asks waits until
    /// the process ends.
    pub(super) fn freeze(&self) {
        mem::forget(self.lock());
    }

    /// What changed, and how many connections the new rules took back to plain TCP.
    fn replace(&self) -> Result<(Vec<Changed>, usize)> {
        let mut current = self.lock();
        let new = self.sources.load()?;
        refuse_fixed(&current, &new)?;
        let options = new.options();
        let limits = |settings: &mut Settings| {
            settings.queue_limit = options.queue_limit;
            settings.memory_limit = options.memory_limit;
            settings.histograms = options.histograms.bits();
        };
        let maps = Maps::open(&self.instance.pins())?;
        let policy = Policy::of(&new);
        let mut changed: Vec<_> = current.changes(&new).iter().map(named).collect();
        let are_other = policy != Policy::of(&current);
        if are_other {
            self.rules.replace(&maps, policy, limits)?;
            changed.extend(other_rules(&current, &new));
        } else {
            maps.change(limits)?;
        }
        *current = new;
        if !are_other {
            return Ok((changed, 0));
        }
        let excluded = self.rules.judge_anew(&maps).unwrap_or_else(|error| {
            warn!("not all connections that are there were judged by the new rules: {error}");
            0
        });
        Ok((changed, excluded))
    }
}

/// Nothing where nothing changed.
fn log(cause: Cause, changed: &[Changed], excluded: usize) {
    for setting in changed {
        info!("reloaded on {cause}: {setting}");
    }
    if excluded > 0 {
        info!("{excluded} connections went back to plain TCP, as the rules exclude them now");
    }
}

/// Rules are many lines: that they differ is told, not how.
fn other_rules(current: &Config, new: &Config) -> Option<Changed> {
    let count = |config: &Config| format!("{} rules", config.rules.len());
    (current.rules != new.rules).then(|| Changed {
        key: "rule".into(),
        old: count(current),
        new: count(new),
    })
}

/// None is put in force when one cannot be.
fn refuse_fixed(current: &Config, new: &Config) -> Result<()> {
    let changes = current.changes(new);
    let fixed = changes.iter().filter(|(_, new)| !new.change.is_live());
    let told: Vec<_> = fixed.map(cannot).collect();
    if told.is_empty() {
        return Ok(());
    }
    bail!(
        "these cannot change while the agent runs:\n{}",
        told.join("\n")
    )
}

fn cannot((old, new): &(Described, Described)) -> String {
    format!(
        "  {} from {} to {} ({}); to do so: {}",
        new.key, old.value, new.value, new.origin, new.change
    )
}

fn named((old, new): &(Described, Described)) -> Changed {
    Changed {
        key: new.key.into(),
        old: old.value.clone(),
        new: new.value.clone(),
    }
}
