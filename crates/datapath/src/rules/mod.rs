//! Rules as tables: made here, looked up by `bpf/lib/rules.h` for every new connection, and
//! evaluated here in the same way for whoever wants to know what the datapath will do.
//!
//! What a rule means to people is none of this module's business: it knows rules by their places in
//! the order, and whether they leave a connection to the kernel path.

mod install;
mod known;
mod prefix;

use std::collections::{BTreeSet, HashMap};

pub use self::install::{InForce, Prepared, prepare};
pub use self::known::Known;
pub use self::prefix::Prefix;
use crate::abi::{
    Dimension, MAX_RULES, Program, Reason, RuleAnswer, RuleOptions, RuleRange, RuleSet, Rules,
};

/// What the rules say of a connection as one of its ends sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opinion {
    /// No rule matches.
    None,
    /// This one does, the first, and lets it take the socket path.
    Socket(usize),
    /// This one does, the first, and leaves it to the kernel path.
    Kernel(usize),
    /// Whether this one does, which is the first that may, depends on what is not said of the ends.
    Depends(usize),
    /// It is not known yet which rules concern the cgroup of an end.
    UnknownWorkload,
    /// Nor which concern the program of an end.
    UnknownProgram,
}

impl Opinion {
    fn unknown(self) -> Option<Reason> {
        match self {
            Self::UnknownWorkload => Some(Reason::UnknownWorkload),
            Self::UnknownProgram => Some(Reason::UnknownProgram),
            _ => None,
        }
    }
}

/// What the rules say of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ruling {
    /// As the end that connected sees it.
    pub client: Opinion,
    /// As the end that accepted sees it.
    pub server: Opinion,
    /// Why it is left to the kernel path, if so.
    pub reason: Option<Reason>,
}

impl Ruling {
    /// Whether it is not settled by what is said of the ends.
    #[must_use]
    pub fn depends(&self) -> bool {
        let depends = |opinion| matches!(opinion, Opinion::Depends(_));
        self.reason != Some(Reason::Excluded) && (depends(self.client) || depends(self.server))
    }
}

/// All rules of one generation.
#[derive(Clone)]
pub struct Tables {
    rules: Rules,
    exact: HashMap<RuleAnswer, RuleSet>,
    ranges: HashMap<RuleRange, RuleSet>,
    /// Of workloads and programs: the rules that do not ask.
    indifferent: HashMap<Dimension, RuleSet>,
    /// Of each rule.
    options: Vec<RuleOptions>,
    /// Where no rule matches.
    otherwise: RuleOptions,
}

impl Tables {
    /// Rules that ask for nothing yet: one for each element of `kernel`, which says whether it leaves
    /// connections to the kernel path. `otherwise_kernel` says so of those that no rule matches.
    ///
    /// # Panics
    /// With more than [`MAX_RULES`].
    #[must_use]
    pub fn new(kernel: &[bool], otherwise_kernel: bool) -> Self {
        assert!(kernel.len() <= MAX_RULES, "the tables have no room");
        let places = |which: &dyn Fn(bool) -> bool| {
            let all = kernel.iter().enumerate();
            all.filter(|(_, kernel)| which(**kernel))
                .map(|(at, _)| at)
                .collect()
        };
        let rules = Rules {
            all: places(&|_| true),
            kernel: places(&|kernel| kernel),
            otherwise_kernel: otherwise_kernel.into(),
            ..Rules::default()
        };
        Self {
            rules,
            exact: HashMap::new(),
            ranges: HashMap::new(),
            indifferent: HashMap::new(),
            options: vec![RuleOptions::default(); kernel.len()],
            otherwise: RuleOptions::default(),
        }
    }

    /// Says how each rule, and nobody, wants connections to be taken that it lets pass.
    ///
    /// # Panics
    /// Unless there is one element for each rule.
    pub fn want(&mut self, options: Vec<RuleOptions>, otherwise: RuleOptions) {
        assert_eq!(options.len(), self.rules.all.len(), "one element a rule");
        (self.options, self.otherwise) = (options, otherwise);
    }

    /// Whether every connection may take the socket path, and all alike.
    #[must_use]
    pub fn say_nothing(&self) -> bool {
        let mut options = self.options.iter().chain([&self.otherwise]);
        self.rules.otherwise_kernel == 0
            && self.rules.kernel.is_empty()
            && options.all(|one| *one == RuleOptions::default())
    }

    /// Whether any rule asks for this.
    #[must_use]
    pub fn ask(&self, dimension: Dimension) -> bool {
        self.rules.dimensions & 1 << dimension as u32 != 0
    }

    /// Says which answers each rule accepts; `None`: it does not ask. For the dimensions of numbers
    /// and addresses.
    ///
    /// # Panics
    /// Unless there is one element for each rule.
    pub fn accept(&mut self, dimension: Dimension, asked: &[Option<Vec<Prefix>>]) {
        assert_eq!(asked.len(), self.rules.all.len(), "one element a rule");
        if asked.iter().all(Option::is_none) {
            return;
        }
        self.rules.dimensions |= 1 << dimension as u32;
        let named: BTreeSet<Prefix> = asked.iter().flatten().flatten().copied().collect();
        for at in named.into_iter().chain(Prefix::ROOTS) {
            let accepts = |wanted: &Option<Vec<Prefix>>| {
                wanted
                    .as_ref()
                    .is_none_or(|prefixes| prefixes.iter().any(|one| one.covers(at)))
            };
            let all = asked.iter().enumerate();
            let set = all.filter(|(_, wanted)| accepts(wanted)).map(|(n, _)| n);
            self.ranges.insert(at.key(dimension), set.collect());
        }
    }

    /// Says that answers of a dimension of workloads or programs are known one by one, and which rules
    /// do not ask for them.
    pub fn ask_for(&mut self, dimension: Dimension, indifferent: RuleSet) {
        self.rules.dimensions |= 1 << dimension as u32;
        self.indifferent.insert(dimension, indifferent);
    }

    /// Says which rules accept an answer, and returns those that were said to before.
    pub fn answer(&mut self, answer: RuleAnswer, accepting: RuleSet) -> Option<RuleSet> {
        self.exact.insert(answer, accepting)
    }

    /// Says which rules accept an answer too, beside those that do already, and returns them all.
    pub fn answer_also(&mut self, answer: RuleAnswer, accepting: RuleSet) -> RuleSet {
        let set = self.exact.entry(answer).or_default();
        for (word, also) in set.words.iter_mut().zip(accepting.words) {
            *word |= also;
        }
        *set
    }

    /// An answer is none any more.
    pub fn forget(&mut self, answer: &RuleAnswer) {
        self.exact.remove(answer);
    }

    /// What happens to a connection between these two.
    #[must_use]
    pub fn rule(&self, client: &Known, server: &Known) -> Ruling {
        let (said, answered) = (self.judge(client, server), self.judge(server, client));
        let excludes = |opinion| matches!(opinion, Opinion::Kernel(_));
        let reason = if self.say_nothing() {
            None // Then the datapath does not judge, so what is unknown does not matter.
        } else if excludes(said) || excludes(answered) {
            Some(Reason::Excluded)
        } else if (said, answered) == (Opinion::None, Opinion::None) {
            (self.rules.otherwise_kernel != 0).then_some(Reason::Excluded)
        } else {
            said.unknown().or(answered.unknown())
        };
        Ruling {
            client: said,
            server: answered,
            reason,
        }
    }

    /// How a connection is taken of which this is said: of two rules, the stricter one counts.
    #[must_use]
    pub fn options(&self, ruling: &Ruling) -> RuleOptions {
        let of = |opinion| match opinion {
            Opinion::Socket(rule) => Some(self.options[rule]),
            _ => None,
        };
        let (said, answered) = (of(ruling.client), of(ruling.server));
        if (ruling.client, ruling.server) == (Opinion::None, Opinion::None) {
            return self.otherwise;
        }
        let limits = [said, answered].into_iter().flatten();
        let limits = limits
            .map(|one| one.queue_limit)
            .filter(|limit| *limit != 0);
        let mut all = [said, answered].into_iter().flatten();
        RuleOptions {
            queue_limit: limits.min().unwrap_or(0),
            at_once: all.any(|one| one.at_once != 0).into(),
        }
    }

    /// `judge` of `bpf/lib/rules.h`, where all is known.
    fn judge(&self, local: &Known, remote: &Known) -> Opinion {
        let mut left = Left {
            surely: self.rules.all,
            maybe: self.rules.all,
        };
        for (dimension, answer) in known::ranges(local, remote) {
            if self.ask(dimension) {
                left.keep(
                    answer.map(|answer| self.of_range(dimension, answer)),
                    || self.of_range(dimension, Prefix::ROOTS[0]),
                );
            }
        }
        if left.maybe.is_empty() {
            return Opinion::None;
        }
        for (dimension, answer) in known::exact(local, remote) {
            if !self.ask(dimension) {
                continue;
            }
            let set = match answer.map(|answer| self.exact.get(&answer)) {
                Some(None) => return unknown(dimension),
                found => found.flatten().copied(),
            };
            left.keep(set, || self.indifferent[&dimension]);
        }
        match left.maybe.first() {
            None => Opinion::None,
            Some(rule) if !left.surely.has(rule) => Opinion::Depends(rule),
            Some(rule) if self.rules.kernel.has(rule) => Opinion::Kernel(rule),
            Some(rule) => Opinion::Socket(rule),
        }
    }

    fn of_range(&self, dimension: Dimension, answer: Prefix) -> RuleSet {
        let mut around = (0..=128).rev().map(|len| answer.shortened(len));
        let found = around.find_map(|prefix| self.ranges.get(&prefix.key(dimension)));
        found.copied().unwrap_or_default()
    }
}

fn unknown(dimension: Dimension) -> Opinion {
    match dimension {
        Dimension::LocalProgram | Dimension::RemoteProgram => Opinion::UnknownProgram,
        _ => Opinion::UnknownWorkload,
    }
}

/// Rules that match as far as was looked.
struct Left {
    surely: RuleSet,
    maybe: RuleSet,
}

impl Left {
    /// Without an answer, only those surely match that do not ask.
    fn keep(&mut self, accepting: Option<RuleSet>, indifferent: impl FnOnce() -> RuleSet) {
        match accepting {
            Some(set) => {
                self.surely = self.surely.and(set);
                self.maybe = self.maybe.and(set);
            }
            None => self.surely = self.surely.and(indifferent()),
        }
    }
}

impl RuleAnswer {
    /// A workload, by the id of its cgroup.
    #[must_use]
    pub fn cgroup(dimension: Dimension, cgroup: u64) -> Self {
        Self {
            dimension: dimension as u64,
            cgroup,
            ..Self::default()
        }
    }

    /// A program.
    #[must_use]
    pub fn program(dimension: Dimension, program: Program) -> Self {
        Self {
            dimension: dimension as u64,
            program,
            ..Self::default()
        }
    }
}

impl RuleSet {
    fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn len(&self) -> usize {
        self.words.iter().map(|w| w.count_ones() as usize).sum()
    }

    fn and(mut self, other: Self) -> Self {
        for (word, other) in self.words.iter_mut().zip(other.words) {
            *word &= other;
        }
        self
    }

    fn has(&self, rule: usize) -> bool {
        self.words[rule / 64] & 1 << (rule % 64) != 0
    }

    fn first(&self) -> Option<usize> {
        let (at, word) = self
            .words
            .iter()
            .enumerate()
            .find(|(_, word)| **word != 0)?;
        Some(at * 64 + word.trailing_zeros() as usize)
    }
}

impl FromIterator<usize> for RuleSet {
    fn from_iter<I: IntoIterator<Item = usize>>(rules: I) -> Self {
        let mut set = Self::default();
        for rule in rules {
            set.words[rule / 64] |= 1 << (rule % 64);
        }
        set
    }
}
