//! Runs a program on a plain and on an accelerated connection at once, and compares.

use std::time::{Duration, Instant};

use super::compare::{Difference, Known, What, came_to_same};
use super::lane::{Answer, Request, Went};
use super::outcome::Seen;
use super::past::Past;
use super::program::{Call, Program, SendBy, Side, Step};
use super::sys::sys;
use super::world::World;
use crate::common::Result;

/// Unread bytes in one direction, so that all of them have room on both paths whatever their sizes.
const ROOM: u64 = 40_000;

/// A thread that sleeps as long as this in a call is taken to wait for something.
const ASLEEP: Duration = Duration::from_micros(200);

/// Likewise when a child makes the call: its parent sleeps meanwhile.
const CHILD_ASLEEP: Duration = Duration::from_millis(20);

/// How long sent bytes may take to show up at a plain peer: a delayed acknowledgement
/// (`TCP_DELACK_MIN`, 40 ms, include/net/tcp.h) releases what Nagle's algorithm holds.
const ARRIVAL: Duration = Duration::from_millis(60);

/// How long the two connections may look different before that is a difference.
const AGREEMENT: Duration = Duration::from_millis(400);

/// How a program went.
pub enum Verdict {
    /// The same on both.
    Same,
    /// The same up to a difference that is listed.
    Known(&'static str),
    /// A bug.
    Differs(Difference),
}

/// What a thread is doing, as both worlds agree on it.
#[derive(Clone)]
struct Busy {
    step: Step,
    number: usize,
    /// Its answers so far, by world.
    answers: [Option<Answer>; 2],
}

/// A program under way.
pub struct Run<'a> {
    /// Plain, accelerated.
    pub(super) worlds: [&'a mut World; 2],
    pub(super) past: Past,
    /// By side and thread.
    busy: [Vec<Option<Busy>>; 2],
    /// Calls made.
    pub steps: u64,
}

impl<'a> Run<'a> {
    /// Connects.
    pub fn new(program: &Program, worlds: [&'a mut World; 2]) -> Result<Self> {
        let [plain, fast] = worlds;
        plain.connect(program.manners)?;
        fast.connect(program.manners)?;
        let lanes = program
            .manners
            .map(|manner| vec![None; 1 + usize::from(manner.threads)]);
        Ok(Self {
            worlds: [plain, fast],
            past: Past::new(program),
            busy: lanes,
            steps: 0,
        })
    }

    /// Runs it all, and leaves the worlds without a connection.
    pub fn all(&mut self, program: &Program) -> Result<Verdict> {
        let found = self.steps(program);
        if found.is_err() || !self.clear() || self.past.used_uring() {
            self.worlds.iter_mut().for_each(|world| world.abandon());
        }
        let Some(found) = found? else {
            return Ok(Verdict::Same);
        };
        Ok(match Known::of(&self.past, &found) {
            Some(known) => Verdict::Known(known.name),
            None => Verdict::Differs(found),
        })
    }

    fn steps(&mut self, program: &Program) -> Result<Option<Difference>> {
        for (index, step) in program.steps.iter().enumerate() {
            let found = self.step(step, index + 1)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    fn step(&mut self, step: &Step, number: usize) -> Result<Option<Difference>> {
        match step.call {
            Call::Signal { .. } | Call::Stop => {
                if !self.disturb(step)? {
                    return Ok(None);
                }
            }
            Call::Pump { .. } | Call::Flood { .. } => {
                if !self.past.flows_from(step.side) || self.anybody_sleeps() {
                    return Ok(None);
                }
                self.past.flooded[step.side as usize] = true;
                let found = self.stream(step, number)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            _ => match self.idle(step.side) {
                Some(lane) if self.fits(step) && self.is_decided(step) => {
                    self.start(step, number, lane)?;
                }
                _ => return Ok(None),
            },
        }
        self.steps += 1;
        self.agree(step, number)
    }

    /// The first thread of an end that does nothing.
    fn idle(&self, side: Side) -> Option<usize> {
        self.busy[side as usize].iter().position(Option::is_none)
    }

    fn anybody_sleeps(&self) -> bool {
        self.busy.iter().flatten().any(Option::is_some)
    }

    fn fits(&self, step: &Step) -> bool {
        let len = match step.call.innermost() {
            Call::Send { len, .. } => *len as u64,
            _ => 0,
        };
        self.past.unread(step.side.peer()) + len <= ROOM
    }

    /// Whether the outcome is TCP's to decide, not the scheduler's.
    ///
    /// NORMALISED, by leaving such steps out: which of two sleeping readers gets the bytes, or gets
    /// them before the other one looks, and how
    /// many of several messages of one call a reader finds when the first of them wakes it.
    fn is_decided(&self, step: &Step) -> bool {
        let sleeps = |side: Side| self.busy[side as usize].iter().any(Option::is_some);
        match step.call.innermost() {
            Call::Send {
                by: SendBy::Sendmmsg,
                ..
            } => !sleeps(step.side.peer()),
            Call::Wait(_) => !sleeps(step.side),
            Call::Recv { by, flags, .. } => !by.may_sleep(*flags) || !sleeps(step.side),
            _ => true,
        }
    }

    fn start(&mut self, step: &Step, number: usize, lane: usize) -> Result {
        self.past.begins(step.side, &step.call);
        let at = self.past.sent[step.side as usize];
        let request = Request::Call {
            call: step.call.clone(),
            at,
        };
        for world in &self.worlds {
            world.lanes(step.side)[lane].start(&request)?;
        }
        let answers = [None, None];
        let busy = Busy {
            step: step.clone(),
            number,
            answers,
        };
        self.busy[step.side as usize][lane] = Some(busy);
        Ok(())
    }

    /// Sends a signal to whoever sleeps on that side; `false` if nobody does.
    fn disturb(&mut self, step: &Step) -> Result<bool> {
        let lanes = &self.busy[step.side as usize];
        let Some(lane) = lanes.iter().position(Option::is_some) else {
            return Ok(false);
        };
        for world in &self.worlds {
            let (pid, tid) = (world.pid(step.side), world.lanes(step.side)[lane].tid);
            let send = |signal: i32| sys!(libc::syscall(libc::SYS_tgkill, pid, tid, signal));
            match step.call {
                Call::Signal { restart: true } => send(libc::SIGUSR2),
                Call::Signal { restart: false } => send(libc::SIGUSR1),
                _ => {
                    sys!(libc::kill(pid, libc::SIGSTOP));
                    sys!(libc::waitpid(pid, std::ptr::null_mut(), libc::WUNTRACED));
                    i64::from(sys!(libc::kill(pid, libc::SIGCONT)))
                }
            };
        }
        Ok(true)
    }

    /// Waits until both worlds look the same, or have had the time for it.
    fn agree(&mut self, step: &Step, number: usize) -> Result<Option<Difference>> {
        let began = Instant::now();
        loop {
            self.collect()?;
            let found = self.finished_differently(number);
            if let Some((found, final_)) = found {
                if final_ || began.elapsed() > AGREEMENT {
                    return Ok(Some(found));
                }
                continue;
            }
            let (arrived, found) = self.look(step, number)?;
            self.release();
            match found {
                None if arrived || began.elapsed() > ARRIVAL => return Ok(None),
                Some(found) if began.elapsed() > AGREEMENT => return Ok(Some(found)),
                _ => {}
            }
        }
    }

    /// Takes the answers that are there, waiting for those who do not sleep.
    fn collect(&mut self) -> Result {
        for side in Side::BOTH {
            let patient = self.past.rcv_timeo[side as usize];
            for (lane, busy) in self.busy[side as usize].iter_mut().enumerate() {
                let Some(busy) = busy else { continue };
                let child = matches!(busy.step.call, Call::Child(_));
                let asleep = if child { CHILD_ASLEEP } else { ASLEEP };
                for (world, answer) in self.worlds.iter().zip(&mut busy.answers) {
                    if answer.is_some() {
                        continue;
                    }
                    let lane = &world.lanes(side)[lane];
                    *answer = match (patient, lane.settle(asleep)?) {
                        (_, Went::Done(answer)) => Some(answer),
                        (true, Went::Asleep) => lane.answer(100)?,
                        (false, Went::Asleep) => None,
                    };
                }
            }
        }
        Ok(())
    }

    /// A call that came to something else, for good; or that still sleeps in one world only.
    fn finished_differently(&self, noticed: usize) -> Option<(Difference, bool)> {
        self.busy.iter().flatten().flatten().find_map(|busy| {
            let outcome = |world: usize| busy.answers[world].as_ref().map(|a| a.outcome.clone());
            let (plain, fast) = (outcome(0), outcome(1));
            let (same, final_) = match (&plain, &fast) {
                (Some(plain), Some(fast)) => (came_to_same(&busy.step.call, plain, fast), true),
                (None, None) => (true, false),
                _ => (false, false),
            };
            let (step, number) = (busy.step.clone(), busy.number);
            let what = What::Call(plain, fast);
            let found = Difference {
                step,
                number,
                noticed,
                what,
            };
            (!same).then_some((found, final_))
        })
    }

    /// Threads that have answered in both worlds are idle again.
    fn release(&mut self) {
        for side in Side::BOTH {
            for place in &mut self.busy[side as usize] {
                let done = place.take_if(|busy| busy.answers.iter().all(Option::is_some));
                if let Some(Busy {
                    step,
                    answers: [Some(plain), _],
                    ..
                }) = done
                {
                    self.past.ended(side, &step.call, &plain.outcome);
                }
            }
        }
    }

    /// Whether the plain connection has come to rest, and how the ends differ.
    fn look(&mut self, step: &Step, number: usize) -> Result<(bool, Option<Difference>)> {
        self.release();
        let (mut arrived, mut found) = (true, None);
        for side in Side::BOTH {
            let Some(lane) = self.idle(side) else {
                continue;
            };
            for world in &self.worlds {
                world.lanes(side)[lane].start(&Request::See)?;
            }
            let plain = self.worlds[0].lanes(side)[lane].finish()?.seen;
            let fast = self.worlds[1].lanes(side)[lane].finish()?.seen;
            arrived &= self.has_arrived(side, &plain);
            if plain != fast {
                let what = What::Look(side, plain, fast);
                let (step, noticed) = (step.clone(), number);
                found = found.or(Some(Difference {
                    step,
                    number,
                    noticed,
                    what,
                }));
            }
        }
        Ok((arrived, found))
    }

    /// Whether nothing is on its way to a plain end any more.
    fn has_arrived(&self, side: Side, seen: &Seen) -> bool {
        let end = libc::POLLHUP | libc::POLLERR;
        // A reader that shut down gets what Nagle's algorithm holds back, too.
        let nagle = self.past.manners.iter().any(|manner| manner.nagle);
        let end = if nagle { end } else { end | libc::POLLRDHUP };
        let ended = seen.poll & end != 0;
        ended || seen.unread < 0 || seen.unread as u64 == self.past.unread(side)
    }

    /// Wakes every sleeper and closes both connections; `false` if somebody cannot be woken.
    fn clear(&mut self) -> bool {
        for side in Side::BOTH {
            for (lane, busy) in self.busy[side as usize].iter_mut().enumerate() {
                let Some(busy) = busy.take() else { continue };
                for (world, answer) in self.worlds.iter().zip(busy.answers) {
                    if answer.is_none() && !wake(world, side, lane) {
                        return false;
                    }
                }
            }
        }
        let reset = |world: &&mut World| {
            Side::BOTH
                .into_iter()
                .all(|side| world.ask(side, 0, &Request::Reset).is_ok())
        };
        self.worlds.iter().all(reset)
    }
}

/// Signals a thread until its call returns.
fn wake(world: &World, side: Side, lane: usize) -> bool {
    let (pid, lane) = (world.pid(side), &world.lanes(side)[lane]);
    (0..50).any(|_| {
        sys!(libc::syscall(
            libc::SYS_tgkill,
            pid,
            lane.tid,
            libc::SIGUSR1
        ));
        matches!(lane.answer(20), Ok(Some(_)))
    })
}
