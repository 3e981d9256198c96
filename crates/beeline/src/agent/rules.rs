//! The rules in force, kept up with what runs on the host.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use datapath::abi::{EndRecord, Handshake, Program, Reason, RuleAnswer, RuleSet, Settings};
use datapath::drain::{self, Outcome};
use datapath::ends::Ends;
use datapath::programs::Programs;
use datapath::rules::{self, InForce, Known, Opinion, Ruling, Tables};
use datapath::{Maps, Result};
use tracing::warn;

use crate::config::Rule;
use crate::policy::Policy;
use crate::workload::tree::Change;

/// How long readers are waited for of connections that rules exclude. One that is not done by then
/// goes over the kernel path all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// What judges new connections.
pub(super) struct Rules(Mutex<State>);

struct State {
    policy: Policy,
    cgroups: HashMap<u64, String>,
    tables: Tables,
    in_force: InForce,
}

impl Rules {
    /// Puts the rules in force for what is there now.
    ///
    /// # Errors
    /// When the kernel refuses; what was in force before still is.
    pub(super) fn put_in_force(
        maps: &Maps,
        policy: Policy,
        cgroups: HashMap<u64, String>,
    ) -> Result<Self> {
        State::install(maps, policy, cgroups, |_| {}).map(|state| Self(Mutex::new(state)))
    }

    /// Puts others in force, with whatever else `change` says.
    ///
    /// # Errors
    /// When the kernel refuses; what was in force before still is.
    pub(super) fn replace(
        &self,
        maps: &Maps,
        policy: Policy,
        change: impl FnOnce(&mut Settings),
    ) -> Result<()> {
        let mut state = self.lock();
        let cgroups = state.cgroups.clone();
        *state = State::install(maps, policy, cgroups, change)?;
        Ok(())
    }

    /// A cgroup came or went.
    ///
    /// # Errors
    /// When the kernel refuses; until it does not any more, the cgroup's connections stay on the
    /// kernel path where rules ask for cgroups.
    pub(super) fn follow(&self, maps: &Maps, change: Change) -> Result<()> {
        let mut state = self.lock();
        match change {
            Change::Appeared(id, path) => {
                let answers = state.policy.of_cgroup(id, &path);
                state.cgroups.insert(id, path);
                state.answer(maps, answers)
            }
            Change::Gone(id) => {
                let path = state.cgroups.remove(&id).unwrap_or_default();
                let answers = state.policy.of_cgroup(id, &path).into_iter();
                state.forget(answers.map(|(answer, _)| answer))
            }
        }
    }

    /// A program has this path.
    ///
    /// # Errors
    /// As [`Rules::follow`].
    pub(super) fn see(&self, maps: &Maps, program: Program, path: &Path) -> Result<()> {
        let mut state = self.lock();
        let answers = state.policy.of_program(program, path);
        state.answer(maps, answers)
    }

    /// Paths of all cgroups that are known.
    pub(super) fn cgroups(&self) -> Vec<String> {
        self.lock().cgroups.values().cloned().collect()
    }

    /// What they say of a connection between these two, and the rules that each end's opinion names.
    pub(super) fn rule(&self, client: &Known, server: &Known) -> (Ruling, [Option<Rule>; 2]) {
        let state = self.lock();
        let ruling = state.tables.rule(client, server);
        let rule = |opinion| match opinion {
            Opinion::Socket(at) | Opinion::Kernel(at) | Opinion::Depends(at) => {
                state.policy.rules().get(at).cloned()
            }
            _ => None,
        };
        (ruling, [ruling.client, ruling.server].map(rule))
    }

    /// Judges by the rules in force what was judged by others: lets those be adopted that wait and that
    /// they let pass, and takes connections back to plain TCP that they do not. One of which only one end
    /// can be seen is ending, or beginning: nobody can tell, so it does not pass where there are rules.
    /// Returns how many went back.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub(super) fn judge_anew(&self, maps: &Maps) -> Result<usize> {
        self.admit(maps, &Ends::waiting(maps)?.list(maps)?)?;
        let excluded = self.excluded(&Ends::load(maps)?.list(maps)?);
        if excluded.is_empty() {
            return Ok(0);
        }
        let deadline = Instant::now() + PATIENCE;
        match drain::retire(maps, &excluded, Reason::Excluded, deadline, |_| {})? {
            Outcome::Done { .. } => {}
            Outcome::Held(held) => warn!(
                sockets = held.len(),
                "of connections that the rules exclude, some have to read on before they are plain \
                 TCP; what they send takes the kernel path already"
            ),
        }
        Ok(excluded.len())
    }

    /// Nobody puts other rules in force meanwhile.
    fn admit(&self, maps: &Maps, waiting: &[EndRecord]) -> Result<()> {
        let state = self.lock();
        let may_be_adopted =
            |ruling: &Ruling| ruling.reason.is_none() && state.tables.options(ruling).at_once == 0;
        let rulings = rulings(&state.tables, waiting).into_iter();
        let passing = rulings.filter(|(_, ruling)| ruling.as_ref().is_some_and(may_be_adopted));
        maps.let_pass(&passing.map(|(client, _)| client).collect::<Vec<_>>())
    }

    fn excluded(&self, enrolled: &[EndRecord]) -> Vec<Handshake> {
        let state = self.lock();
        if state.tables.say_nothing() {
            return Vec::new();
        }
        let rulings = rulings(&state.tables, enrolled).into_iter();
        let excluded =
            rulings.filter(|(_, ruling)| ruling.is_none_or(|ruling| ruling.reason.is_some()));
        excluded.map(|(client, _)| client).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of each connection, by the client's view; `None` where one end cannot be seen.
fn rulings(tables: &Tables, ends: &[EndRecord]) -> Vec<(Handshake, Option<Ruling>)> {
    let is_live = |end: &&EndRecord| !end.end.is_closed() && end.end.retiring == 0;
    let by_own: HashMap<Handshake, &EndRecord> = ends
        .iter()
        .filter(is_live)
        .map(|end| (end.end.own, end))
        .collect();
    let views = by_own.values().map(|end| match end.end.is_client() {
        true => end.end.own,
        false => end.end.own.mirror(),
    });
    let clients: HashSet<Handshake> = views.collect();
    let ruled = |client: Handshake| {
        let (own, peer) = (by_own.get(&client)?, by_own.get(&client.mirror())?);
        Some(tables.rule(&Known::of(own), &Known::of(peer)))
    };
    clients
        .into_iter()
        .map(|client| (client, ruled(client)))
        .collect()
}

impl State {
    fn install(
        maps: &Maps,
        policy: Policy,
        cgroups: HashMap<u64, String>,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self> {
        let programs: Vec<(Program, PathBuf)> = match policy.asks_for_programs() {
            true => Programs::load(maps, |_| false)?.running()?,
            false => Vec::new(),
        };
        let tables = policy.tables(&cgroups, &programs);
        let in_force = rules::prepare(maps, &tables)?.put_in_force(maps, change)?;
        Ok(Self {
            policy,
            cgroups,
            tables,
            in_force,
        })
    }

    /// Without room, the tables are made anew: with more, and without programs that run no more.
    fn answer(&mut self, maps: &Maps, answers: Vec<(RuleAnswer, RuleSet)>) -> Result<()> {
        for (answer, set) in answers {
            let set = self.tables.answer_also(answer, set);
            if self.in_force.answer(&answer, &set).is_err() {
                let (policy, cgroups) = (self.policy.clone(), self.cgroups.clone());
                *self = Self::install(maps, policy, cgroups, |_| {})?;
                break;
            }
        }
        Ok(())
    }

    fn forget(&mut self, answers: impl Iterator<Item = RuleAnswer>) -> Result<()> {
        for answer in answers {
            self.tables.forget(&answer);
            self.in_force.forget(&answer)?;
        }
        Ok(())
    }
}
