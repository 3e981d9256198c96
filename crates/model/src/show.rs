//! A state on one line of a counterexample.

use std::fmt;

use crate::state::{Enrolment, Mode, Sender, State, Tx};

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", tx(self.tx), sender(self.sender))?;
        write!(f, " | psock{:?}", self.psock_queue)?;
        write!(f, " tcp{:?}<-{:?}", self.receive_queue, self.flight)?;
        write!(f, " end {:?}", self.end)?;
        write!(f, " | {}", maps(&self.enrolment))?;
        write!(f, " readers {:?} read {}", self.readers, self.read)?;
        if self.edge {
            f.write_str(" edge")?;
        }
        if self.mode == Mode::Detaching {
            write!(f, " | detaching, agent {:?}", self.agent)?;
        }
        if self.retires {
            let mark = if self.retiring {
                "marked"
            } else {
                "not marked"
            };
            write!(f, " | retiring, sender {mark}, agent {:?}", self.agent)?;
        }
        if let Some(fault) = self.fault {
            write!(f, " | {fault:?}")?;
        }
        Ok(())
    }
}

fn tx(tx: Tx) -> String {
    match tx {
        Tx::Start => "TX_START".to_owned(),
        Tx::Redirect => "TX_REDIRECT".to_owned(),
        Tx::Kernel(reason) => format!("TX_KERNEL({reason:?})"),
    }
}

fn sender(sender: Sender) -> String {
    match sender {
        Sender::AtRest => String::new(),
        between => format!("{between:?}"),
    }
}

fn maps(enrolment: &Enrolment) -> &'static str {
    match (enrolment.socks, enrolment.targets) {
        (true, true) => "socks targets",
        (true, false) => "socks",
        _ => "plain",
    }
}
