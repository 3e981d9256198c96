//! The rules of the configuration as tables for the datapath.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use datapath::abi::{Dimension, Program, RuleAnswer, RuleOptions, RuleSet};
use datapath::rules::{Prefix, Tables};

use crate::config::{Adopt, Ask, Config, Name, Outcome, QueueLimit, Rule};
use crate::workload::{container, short, units};

/// Which end of a connection, seen from one of them.
type End = fn(&Rule) -> &Ask;

const WORKLOADS: [(Dimension, End); 2] = [
    (Dimension::LocalWorkload, |rule| &rule.local),
    (Dimension::RemoteWorkload, |rule| &rule.remote),
];

const PROGRAMS: [(Dimension, End); 2] = [
    (Dimension::LocalProgram, |rule| &rule.local),
    (Dimension::RemoteProgram, |rule| &rule.remote),
];

/// Rules, and what becomes of connections that none matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Outcome,
    adopt: Adopt,
}

impl Policy {
    /// What the configuration says.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        Self {
            rules: config.rules.clone(),
            otherwise: config.otherwise.value,
            adopt: config.adopt.value,
        }
    }

    /// The rules in their order.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether any rule asks for executables.
    #[must_use]
    pub fn asks_for_programs(&self) -> bool {
        PROGRAMS
            .iter()
            .any(|(_, end)| self.any(*end, asks_for_program))
    }

    /// What the datapath looks up, with these cgroups, by their ids, and programs.
    #[must_use]
    pub fn tables(
        &self,
        cgroups: &HashMap<u64, String>,
        programs: &[(Program, PathBuf)],
    ) -> Tables {
        let kernel: Vec<_> = self
            .rules
            .iter()
            .map(|rule| rule.path == Outcome::Kernel)
            .collect();
        let mut tables = Tables::new(&kernel, self.otherwise == Outcome::Kernel);
        let options = self.rules.iter().map(|rule| self.options(Some(rule)));
        tables.want(options.collect(), self.options(None));
        self.accept(&mut tables, Dimension::LocalUser, |rule| users(&rule.local));
        self.accept(&mut tables, Dimension::RemoteUser, |rule| {
            users(&rule.remote)
        });
        self.accept(&mut tables, Dimension::LocalAddress, |rule| {
            networks(&rule.local)
        });
        self.accept(&mut tables, Dimension::RemoteAddress, |rule| {
            networks(&rule.remote)
        });
        self.accept(&mut tables, Dimension::LocalPort, |rule| ports(&rule.local));
        self.accept(&mut tables, Dimension::RemotePort, |rule| {
            ports(&rule.remote)
        });
        self.ask_for(&mut tables, WORKLOADS, asks_for_workload);
        self.ask_for(&mut tables, PROGRAMS, asks_for_program);
        for (id, path) in cgroups {
            for (answer, set) in self.of_cgroup(*id, path) {
                tables.answer(answer, set);
            }
        }
        for (program, path) in programs {
            for (answer, set) in self.of_program(*program, path) {
                tables.answer_also(answer, set);
            }
        }
        tables
    }

    /// How a rule wants the connections that it lets pass, or nobody does.
    fn options(&self, rule: Option<&Rule>) -> RuleOptions {
        let limit = rule.and_then(|rule| rule.queue_limit);
        let adopt = rule.and_then(|rule| rule.adopt).unwrap_or(self.adopt);
        RuleOptions {
            queue_limit: limit.map_or(0, QueueLimit::bytes),
            at_once: u32::from(!adopt.0),
        }
    }

    /// The answers of a cgroup, each with the rules that accept it.
    #[must_use]
    pub fn of_cgroup(&self, id: u64, path: &str) -> Vec<(RuleAnswer, RuleSet)> {
        let answer = |dimension| RuleAnswer::cgroup(dimension, id);
        self.answers(WORKLOADS, asks_for_workload, answer, |ask| is_in(ask, path))
    }

    /// The answers of a program that has, or had, this path.
    #[must_use]
    pub fn of_program(&self, program: Program, path: &Path) -> Vec<(RuleAnswer, RuleSet)> {
        let answer = |dimension| RuleAnswer::program(dimension, program);
        let accepts = |ask: &Ask| {
            ask.executable.is_empty() || ask.executable.iter().any(|one| one.matches(path))
        };
        self.answers(PROGRAMS, asks_for_program, answer, accepts)
    }

    /// Those of these dimensions that any rule asks for.
    fn ask_for(
        &self,
        tables: &mut Tables,
        dimensions: [(Dimension, End); 2],
        asks: fn(&Ask) -> bool,
    ) {
        for (dimension, end) in dimensions {
            if self.any(end, asks) {
                let indifferent = self.accepting(|rule| !asks(end(rule)));
                tables.ask_for(dimension, indifferent);
            }
        }
    }

    /// What it answers in those of these dimensions that any rule asks for, each with the rules that
    /// accept it.
    fn answers(
        &self,
        dimensions: [(Dimension, End); 2],
        asks: fn(&Ask) -> bool,
        answer: impl Fn(Dimension) -> RuleAnswer,
        accepts: impl Fn(&Ask) -> bool,
    ) -> Vec<(RuleAnswer, RuleSet)> {
        let asked = dimensions
            .into_iter()
            .filter(|(_, end)| self.any(*end, asks));
        asked
            .map(|(dimension, end)| {
                let set = self.accepting(|rule| accepts(end(rule)));
                (answer(dimension), set)
            })
            .collect()
    }

    fn any(&self, end: End, asks: fn(&Ask) -> bool) -> bool {
        self.rules.iter().any(|rule| asks(end(rule)))
    }

    fn accepting(&self, accepts: impl Fn(&Rule) -> bool) -> RuleSet {
        let all = self.rules.iter().enumerate();
        all.filter(|(_, rule)| accepts(rule))
            .map(|(at, _)| at)
            .collect()
    }

    fn accept(
        &self,
        tables: &mut Tables,
        dimension: Dimension,
        asked: impl Fn(&Rule) -> Vec<Prefix>,
    ) {
        let asked = self.rules.iter().map(asked);
        let asked: Vec<_> = asked.map(|all| (!all.is_empty()).then_some(all)).collect();
        tables.accept(dimension, &asked);
    }
}

fn asks_for_workload(ask: &Ask) -> bool {
    !(ask.cgroup.is_empty() && ask.unit.is_empty() && ask.container.is_empty())
}

fn asks_for_program(ask: &Ask) -> bool {
    !ask.executable.is_empty()
}

/// Whether a cgroup is what is asked for, in every respect.
fn is_in(ask: &Ask, cgroup: &str) -> bool {
    let is_named = |names: &[Name], name: &str| names.iter().any(|one| one.matches(name));
    let unit = |names: &[Name]| units(cgroup).any(|unit| is_named(names, unit));
    let id = |names: &[Name]| {
        container(cgroup).is_some_and(|id| is_named(names, id) || is_named(names, short(id)))
    };
    (ask.cgroup.is_empty() || ask.cgroup.iter().any(|one| one.match_path(cgroup)))
        && (ask.unit.is_empty() || unit(&ask.unit))
        && (ask.container.is_empty() || id(&ask.container))
}

fn users(ask: &Ask) -> Vec<Prefix> {
    ask.uid.iter().copied().map(Prefix::user).collect()
}

fn networks(ask: &Ask) -> Vec<Prefix> {
    let all = ask.cidr.iter();
    all.map(|one| Prefix::network(one.address, one.prefix))
        .collect()
}

fn ports(ask: &Ask) -> Vec<Prefix> {
    let all = ask.port.iter();
    all.flat_map(|one| Prefix::ports(one.0.clone())).collect()
}
