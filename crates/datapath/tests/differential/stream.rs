//! Streams longer than the buffers: both ends work at once.

use super::compare::{Difference, What, came_to_same};
use super::lane::Request;
use super::program::{Call, Side, Step};
use super::run::Run;
use crate::common::Result;

impl Run<'_> {
    /// A stream of many bytes, in each world by itself: the sizes that fit differ.
    pub(super) fn stream(&mut self, step: &Step, number: usize) -> Result<Option<Difference>> {
        let (from, to) = (step.side, step.side.peer());
        let (unread, at) = (self.past.unread(to) as usize, self.past.sent[from as usize]);
        let got = self.past.got[to as usize];
        let mut outcomes = [[None, None], [None, None]];
        for (world, outcomes) in self.worlds.iter().zip(&mut outcomes) {
            let (sender, reader) = (&world.lanes(from)[0], &world.lanes(to)[0]);
            let sent = match step.call {
                Call::Pump { len, write, read } => {
                    reader.start(&Request::RecvAll {
                        len: unread + len,
                        piece: read,
                        at: got,
                    })?;
                    sender.start(&Request::SendAll {
                        len,
                        piece: write,
                        at,
                    })?;
                    sender.finish()?
                }
                Call::Flood { write, read } => {
                    sender.start(&Request::Fill { piece: write, at })?;
                    let sent = sender.finish()?;
                    let len = unread + sent.outcome.ret as usize;
                    reader.start(&Request::RecvAll {
                        len,
                        piece: read,
                        at: got,
                    })?;
                    sent
                }
                _ => unreachable!("only these are streams"),
            };
            let mut read = reader.finish()?.outcome;
            if !read.more.is_empty() {
                return Err(format!("the harness lost count: {read}").into());
            }
            // NORMALISED: whether a sender had to wait for room, and so gets an edge when there is
            // some, depends on buffers.
            for side in Side::BOTH {
                let (call, at) = (Call::Epoll { edge: true }, 0);
                world.ask(side, 0, &Request::Call { call, at })?;
            }
            // What counts is that nothing is missing.
            read.ret -= sent.outcome.ret;
            *outcomes = [Some(sent.outcome), Some(read)];
        }
        self.past.drained(from);
        let [[sent, read], [fast_sent, fast_read]] = outcomes;
        let pairs = [
            (sent, fast_sent, &step.call),
            (read, fast_read, &Call::Close),
        ];
        let differs = pairs.into_iter().find(|(plain, fast, call)| {
            !matches!((plain, fast), (Some(plain), Some(fast)) if came_to_same(call, plain, fast))
        });
        Ok(differs.map(|(plain, fast, _)| {
            let what = What::Call(plain, fast);
            let step = step.clone();
            Difference {
                step,
                number,
                noticed: number,
                what,
            }
        }))
    }
}
