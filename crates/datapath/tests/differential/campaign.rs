//! Many programs: where they come from, what they came to, and how a failing one is made short.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use datapath::abi::Totals;
use datapath::socket::Options;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use testbed::Cgroup;

use super::compare::{Difference, KNOWN};
use super::generate;
use super::program::Program;
use super::run::{Run, Verdict};
use super::world::World;
use crate::common::{Bed, Result};

/// Calls of the longest program.
const LONGEST: usize = 40;

/// A difference has to show up again in one of so many more runs; else it is reported as it is.
const AGAIN: usize = 3;

/// How long making a program shorter may take.
const SHRINKING: Duration = Duration::from_secs(30);

/// Where random programs come from.
#[derive(Clone, Copy)]
pub enum Seed {
    /// The same in every run.
    Fixed,
    /// New ones each time.
    Random,
}

/// Two worlds, and all that was run in them.
pub struct Campaign {
    plain: World,
    fast: World,
    bed: Bed,
    runner: TestRunner,
    began: Instant,
    programs: u64,
    steps: u64,
    /// Programs in which bytes were redirected.
    redirected: u64,
    known: BTreeMap<&'static str, u64>,
    /// Differences that did not come again.
    once: Vec<String>,
    last: Totals,
    // After the worlds: their processes live in them.
    _cgroups: [Cgroup; 2],
}

impl Campaign {
    /// Loads the datapath for one of two cgroups.
    pub fn new(cgroup: &Cgroup, seed: Seed) -> Result<Self> {
        let cgroups = [cgroup.child("plain")?, cgroup.child("fast")?];
        // So small that most streams meet a full queue.
        let queue_limit = 256 << 10;
        let options = Options {
            queue_limit,
            ..Options::default()
        };
        let bed = Bed::with(&cgroups[1], options)?;
        let rng = match seed {
            Seed::Fixed => TestRng::deterministic_rng(RngAlgorithm::ChaCha),
            Seed::Random => {
                let mut seed = [0; 32];
                File::open("/dev/urandom")?.read_exact(&mut seed)?;
                TestRng::from_seed(RngAlgorithm::ChaCha, &seed)
            }
        };
        Ok(Self {
            plain: World::new(cgroups[0].path().into()),
            fast: World::new(cgroups[1].path().into()),
            bed,
            runner: TestRunner::new_with_rng(Config::default(), rng),
            began: Instant::now(),
            programs: 0,
            steps: 0,
            redirected: 0,
            known: BTreeMap::new(),
            once: Vec::new(),
            last: Totals::default(),
            _cgroups: cgroups,
        })
    }

    /// Runs every saved program.
    pub fn regressions(&mut self) -> Result {
        for entry in fs::read_dir(regressions())? {
            let path = entry?.path();
            let program: Program = serde_json::from_slice(&fs::read(&path)?)?;
            if let Some(found) = self.differs(&program)? {
                return Err(format!("{}\n{program}{found}", path.display()).into());
            }
        }
        Ok(())
    }

    /// Runs random programs, up to that many and for that long.
    ///
    /// # Errors
    /// With the shortest program of every kind of difference.
    pub fn random(&mut self, most: u64, duration: Duration) -> Result {
        let programs = generate::programs(LONGEST);
        let until = Instant::now() + duration;
        let (mut kinds, mut failed) = (BTreeSet::new(), String::new());
        while self.programs < most && Instant::now() < until {
            let mut tree = programs
                .new_tree(&mut self.runner)
                .map_err(|reason| reason.message().to_owned())?;
            let program = tree.current();
            let Some(found) = self.differs(&program)? else {
                continue;
            };
            if kinds.contains(&found.kind()) {
                continue;
            }
            if !self.comes_again(&program)? {
                self.once.push(format!("{program}{found}"));
                continue;
            }
            kinds.insert(found.kind());
            let (program, found) = self.shorten(&mut tree, program, found)?;
            kinds.insert(found.kind());
            let saved = save(&program)?;
            failed += &format!("{program}{found}\nsaved as {}\n\n", saved.display());
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.into())
        }
    }

    fn comes_again(&mut self, program: &Program) -> Result<bool> {
        for _ in 0..AGAIN {
            if self.differs(program)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Leaves out what is not needed for the difference.
    fn shorten(
        &mut self,
        tree: &mut impl ValueTree<Value = Program>,
        mut shortest: Program,
        mut found: Difference,
    ) -> Result<(Program, Difference)> {
        let until = Instant::now() + SHRINKING;
        let mut more = tree.simplify();
        while more && Instant::now() < until {
            let program = tree.current();
            if let Some(difference) = self.differs(&program)? {
                (shortest, found) = (program, difference);
                more = tree.simplify();
            } else {
                more = tree.complicate();
            }
        }
        Ok((shortest, found))
    }

    /// Runs a program once.
    fn differs(&mut self, program: &Program) -> Result<Option<Difference>> {
        let mut run = Run::new(program, [&mut self.plain, &mut self.fast])?;
        let verdict = run
            .all(program)
            .map_err(|error| format!("{error}\n{program}"))?;
        self.steps += run.steps;
        self.programs += 1;
        let totals = self.bed.totals()?;
        let moved = totals.closed_redirected_bytes > self.last.closed_redirected_bytes;
        self.redirected += u64::from(moved);
        self.last = totals;
        Ok(match verdict {
            Verdict::Same => None,
            Verdict::Known(name) => {
                *self.known.entry(name).or_default() += 1;
                None
            }
            Verdict::Differs(found) => Some(found),
        })
    }

    /// The accelerated pair has to be what it is called, or nothing was compared.
    pub fn expect_accelerated(&self) -> Result {
        // Programs that send nothing, or end early, redirect nothing.
        if self.redirected * 2 < self.programs {
            return Err(format!("too few programs were accelerated: {self}").into());
        }
        Ok(())
    }

    /// A difference that is listed and does not exist hides others.
    pub fn expect_every_known(&self) -> Result {
        let gone: Vec<_> = KNOWN
            .iter()
            .map(|known| known.name)
            .filter(|name| !self.known.contains_key(name))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        Err(format!("listed as different, but always the same: {gone:?}: {self}").into())
    }
}

impl fmt::Display for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.began.elapsed().as_secs_f64();
        writeln!(
            f,
            "{} steps in {} programs, {:.0} steps/s; {} programs redirected bytes, {} of {} connections enrolled",
            self.steps,
            self.programs,
            self.steps as f64 / seconds,
            self.redirected,
            self.last.paired,
            self.programs
        )?;
        writeln!(f, "listed differences seen: {:?}", self.known)?;
        for once in &self.once {
            writeln!(f, "seen once, and not again:\n{once}")?;
        }
        Ok(())
    }
}

fn regressions() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/differential/regressions")
}

/// Under a new name that tells what it is about.
fn save(program: &Program) -> Result<PathBuf> {
    let last = program
        .steps
        .last()
        .map_or(String::new(), |step| step.call.to_string());
    let words: String = last
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        })
        .collect();
    let name = words.trim_matches('-');
    let path = (1..)
        .map(|n| regressions().join(format!("{name}-{n}.json")))
        .find(|path| !path.exists())
        .expect("some number is free");
    fs::write(&path, serde_json::to_string_pretty(program)? + "\n")?;
    Ok(path)
}
