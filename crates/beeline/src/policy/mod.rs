//! The rules of the configuration as tables for the datapath.

mod workload;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use datapath::abi::{Dimension, Program, RuleAnswer, RuleOptions, RuleSet};
use datapath::rules::{Prefix, Tables};

use crate::config::{Adopt, Ask, Config, Outcome, QueueLimit, Rule};
use crate::workload::Containers;

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

    /// Whether any rule asks for something of containers that their cgroups do not tell.
    #[must_use]
    pub fn asks_sources(&self) -> bool {
        WORKLOADS
            .iter()
            .any(|(_, end)| self.any(*end, workload::asks_sources))
    }

    /// The labels that rules ask for.
    #[must_use]
    pub fn labels(&self) -> BTreeSet<&str> {
        let asks = self
            .rules
            .iter()
            .flat_map(|rule| [&rule.local, &rule.remote]);
        asks.flat_map(|ask| ask.labels.keys()).collect()
    }

    /// What the datapath looks up, with these cgroups, by their ids, and programs. Cgroups of containers
    /// of which too little is known are left out, and so unknown to the datapath.
    #[must_use]
    pub fn tables(
        &self,
        cgroups: &HashMap<u64, String>,
        containers: &Containers,
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
        self.ask_for(&mut tables, WORKLOADS, workload::asks);
        self.ask_for(&mut tables, PROGRAMS, asks_for_program);
        for (id, path) in cgroups {
            for (answer, set) in self.of_cgroup(*id, path, containers) {
                if let Some(set) = set {
                    tables.answer(answer, set);
                }
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

    /// The answers of a cgroup, each with the rules that accept it; `None` as long as too little is known
    /// of its container.
    #[must_use]
    pub fn of_cgroup(
        &self,
        id: u64,
        path: &str,
        containers: &Containers,
    ) -> Vec<(RuleAnswer, Option<RuleSet>)> {
        let asked = self.asked(WORKLOADS, workload::asks);
        asked
            .map(|(dimension, end)| {
                let rules = self.rules.iter().enumerate();
                let accepts = |(at, rule)| {
                    workload::is_in(end(rule), path, containers).map(|is_in| is_in.then_some(at))
                };
                let accepting = rules.map(accepts).collect::<Option<Vec<_>>>();
                let set = accepting.map(|all| all.into_iter().flatten().collect());
                (RuleAnswer::cgroup(dimension, id), set)
            })
            .collect()
    }

    /// The answers of a program that has, or had, this path.
    #[must_use]
    pub fn of_program(&self, program: Program, path: &Path) -> Vec<(RuleAnswer, RuleSet)> {
        let accepts = |ask: &Ask| {
            ask.executable.is_empty() || ask.executable.iter().any(|one| one.matches(path))
        };
        let asked = self.asked(PROGRAMS, asks_for_program);
        asked
            .map(|(dimension, end)| {
                let set = self.accepting(|rule| accepts(end(rule)));
                (RuleAnswer::program(dimension, program), set)
            })
            .collect()
    }

    /// Says so of those of these dimensions that any rule asks for.
    fn ask_for(
        &self,
        tables: &mut Tables,
        dimensions: [(Dimension, End); 2],
        asks: fn(&Ask) -> bool,
    ) {
        for (dimension, end) in self.asked(dimensions, asks) {
            let indifferent = self.accepting(|rule| !asks(end(rule)));
            tables.ask_for(dimension, indifferent);
        }
    }

    /// Those of these dimensions that any rule asks for.
    fn asked(
        &self,
        dimensions: [(Dimension, End); 2],
        asks: fn(&Ask) -> bool,
    ) -> impl Iterator<Item = (Dimension, End)> {
        dimensions
            .into_iter()
            .filter(move |(_, end)| self.any(*end, asks))
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

fn asks_for_program(ask: &Ask) -> bool {
    !ask.executable.is_empty()
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
