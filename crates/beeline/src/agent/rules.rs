//! The rules in force, kept up with what runs on the host.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use datapath::abi::{
    EndRecord, Handshake, Program, Reason, RuleAnswer, RuleOptions, RuleSet, Settings,
};
use datapath::drain::{self, Outcome};
use datapath::earlier::{Earlier, Pair};
use datapath::ends::Ends;
use datapath::programs::Programs;
use datapath::rules::{self, InForce, Known, Opinion, Ruling, Tables};
use datapath::{Maps, Result};
use tracing::warn;

use crate::config::Rule;
use crate::policy::Policy;
use crate::workload::source::News;
use crate::workload::tree::Change;
use crate::workload::{Containers, container};

/// How long readers are waited for of connections that rules exclude. One that is not done by then
/// goes over the kernel path all the same.
const PATIENCE: Duration = Duration::from_secs(2);

/// What judges new connections.
pub(super) struct Rules(Mutex<State>);

struct State {
    policy: Policy,
    host: Host,
    tables: Tables,
    in_force: InForce,
}

/// What runs on the host.
#[derive(Clone)]
pub(super) struct Host {
    /// Cgroups by their ids.
    pub(super) cgroups: HashMap<u64, String>,
    /// What sources told.
    pub(super) containers: Containers,
}

impl Rules {
    /// Puts the rules in force for what is there now.
    ///
    /// # Errors
    /// When the kernel refuses; what was in force before still is.
    pub(super) fn put_in_force(maps: &Maps, policy: Policy, host: Host) -> Result<Self> {
        State::install(maps, policy, host, |_| {}).map(|state| Self(Mutex::new(state)))
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
        let host = state.host.clone();
        *state = State::install(maps, policy, host, change)?;
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
                state.host.cgroups.insert(id, path);
                state.answer_for(maps, id).map(drop)
            }
            Change::Gone(id) => {
                let path = state.host.cgroups.remove(&id).unwrap_or_default();
                let answers = state.policy.of_cgroup(id, &path, &Containers::default());
                let mut answers = answers.into_iter();
                answers.try_for_each(|(answer, _)| state.forget(&answer))
            }
        }
    }

    /// A source tells something. Connections that rules exclude, now that it is known, are taken back to
    /// plain TCP.
    ///
    /// # Errors
    /// As [`Rules::follow`].
    pub(super) fn learn(&self, maps: &Maps, source: usize, news: News) -> Result<()> {
        let mut state = self.lock();
        let ids = state.host.containers.learn(source, news);
        if ids.is_empty() {
            return Ok(());
        }
        let is_concerned = |path: &String| container(path).is_some_and(|id| ids.contains(id));
        let cgroups = state.host.cgroups.iter();
        let concerned = cgroups.filter(|(_, path)| is_concerned(path));
        let concerned: Vec<u64> = concerned.map(|(id, _)| *id).collect();
        let mut is_other = false;
        for cgroup in concerned {
            is_other |= state.answer_for(maps, cgroup)?;
        }
        if is_other {
            // Another generation, so that nothing waits that was judged by the answers before.
            let (policy, host) = (state.policy.clone(), state.host.clone());
            *state = State::install(maps, policy, host, |_| {})?;
            drop(state);
            self.judge_anew(maps)?;
        }
        Ok(())
    }

    /// A program has this path.
    ///
    /// # Errors
    /// As [`Rules::follow`].
    pub(super) fn see(&self, maps: &Maps, program: Program, path: &Path) -> Result<()> {
        let mut state = self.lock();
        for (answer, set) in state.policy.of_program(program, path) {
            let set = state.tables.answer_also(answer, set);
            state.answer(maps, &answer, &set)?;
        }
        Ok(())
    }

    /// Looks at what is known of the host.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Host) -> T) -> T {
        at(&self.lock().host)
    }

    /// The labels that rules ask for.
    pub(super) fn labels(&self) -> Vec<String> {
        let state = self.lock();
        state.policy.labels().into_iter().map(Into::into).collect()
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

    /// Lets those of these connections from before the attachment be adopted, at most
    /// [`Earlier::AT_ONCE`], that are covered and that the rules let pass. Returns how many.
    ///
    /// # Errors
    /// When the kernel refuses a step.
    pub(super) fn remember(&self, maps: &Maps, earlier: &Earlier, pairs: &[Pair]) -> Result<usize> {
        // Nobody puts other rules in force meanwhile.
        let state = self.lock();
        let covers = |end: &EndRecord| state.host.cgroups.contains_key(&end.cgroup_id);
        let found = earlier.facts(pairs)?.into_iter();
        let covered = found.filter(|both| covers(&both.client) && covers(&both.server));
        let passing = covered.filter_map(|both| {
            let (client, server) = (Known::of(&both.client), Known::of(&both.server));
            let ruling = state.tables.rule(&client, &server);
            let options = state.adoptable(&ruling)?;
            Some((both, options.queue_limit))
        });
        let passing: Vec<_> = passing.collect();
        earlier.remember(maps, &passing)?;
        Ok(passing.len())
    }

    /// Nobody puts other rules in force meanwhile.
    fn admit(&self, maps: &Maps, waiting: &[EndRecord]) -> Result<()> {
        let state = self.lock();
        let rulings = rulings(&state.tables, waiting).into_iter();
        let passes =
            |ruling: &Option<Ruling>| ruling.is_some_and(|one| state.adoptable(&one).is_some());
        let passing = rulings.filter(|(_, ruling)| passes(ruling));
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
        host: Host,
        change: impl FnOnce(&mut Settings),
    ) -> Result<Self> {
        let programs: Vec<(Program, PathBuf)> = match policy.asks_for_programs() {
            true => Programs::load(maps, |_| false)?.running()?,
            false => Vec::new(),
        };
        let tables = policy.tables(&host.cgroups, &host.containers, &programs);
        let is_open = policy.asks_sources() && !host.containers.are_told();
        if is_open && !tables.say_nothing() {
            warn!(
                "rules ask for names, labels or pods of containers, and nobody tells them yet: \
                 connections of containers that such a rule may match stay on the kernel path; \
                 [containers] sockets says who is asked"
            );
        }
        let in_force = rules::prepare(maps, &tables)?.put_in_force(maps, change)?;
        Ok(Self {
            policy,
            host,
            tables,
            in_force,
        })
    }

    /// How a connection is adopted, if it may be.
    fn adoptable(&self, ruling: &Ruling) -> Option<RuleOptions> {
        let options = self.tables.options(ruling);
        (ruling.reason.is_none() && options.at_once == 0).then_some(options)
    }

    /// Says which rules accept a cgroup, as far as is known now. Returns whether that was known before,
    /// and is not the same.
    fn answer_for(&mut self, maps: &Maps, cgroup: u64) -> Result<bool> {
        let path = self.host.cgroups.get(&cgroup).cloned().unwrap_or_default();
        let answers = self.policy.of_cgroup(cgroup, &path, &self.host.containers);
        let mut is_other = false;
        for (answer, set) in answers {
            let Some(set) = set else {
                self.forget(&answer)?;
                continue;
            };
            let before = self.tables.answer(answer, set);
            if before != Some(set) {
                is_other |= before.is_some();
                self.answer(maps, &answer, &set)?;
            }
        }
        Ok(is_other)
    }

    /// Without room, the tables are made anew: with more, and without programs that run no more.
    fn answer(&mut self, maps: &Maps, answer: &RuleAnswer, set: &RuleSet) -> Result<()> {
        if self.in_force.answer(answer, set).is_err() {
            let (policy, host) = (self.policy.clone(), self.host.clone());
            *self = Self::install(maps, policy, host, |_| {})?;
        }
        Ok(())
    }

    fn forget(&mut self, answer: &RuleAnswer) -> Result<()> {
        self.tables.forget(answer);
        self.in_force.forget(answer)
    }
}
