//! Putting another configuration in force while the agent serves.

use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use datapath::Maps;

use crate::config::{Config, Described, Sources};
use crate::control::{Changed, Reloaded};
use crate::instance::Instance;

/// The configuration in force, and where it came from.
pub(super) struct Live {
    instance: Instance,
    sources: Sources,
    config: Mutex<Config>,
}

impl Live {
    pub(super) fn new(instance: Instance, config: Config, sources: Sources) -> Self {
        Self {
            instance,
            sources,
            config: Mutex::new(config),
        }
    }

    /// Reads the sources again. One update of one map puts all in force that can change.
    pub(super) fn reload(&self) -> Reloaded {
        match self.replace() {
            Ok(changed) => Reloaded::InForce { changed },
            Err(error) => Reloaded::Refused {
                why: format!("{error:#}"),
            },
        }
    }

    fn replace(&self) -> Result<Vec<Changed>> {
        let mut current = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let new = self.sources.load()?;
        refuse_fixed(&current, &new)?;
        let options = new.options();
        Maps::open(&self.instance.pins())?.change(|settings| {
            settings.queue_limit = options.queue_limit;
            settings.memory_limit = options.memory_limit;
        })?;
        let changed = current.changes(&new);
        *current = new;
        Ok(changed.iter().map(named).collect())
    }
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
