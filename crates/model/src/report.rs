//! Running the checker, and telling what it found.

use std::fmt;

use stateright::{Checker, Model};

use crate::action::Action;
use crate::case::Case;
use crate::machine::Machine;
use crate::rules::Rules;
use crate::state::State;

/// What must hold at every moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    /// Bytes are read in the order in which they were sent, none twice.
    InOrder,
    /// Whoever gets end of file got every byte for which `send` was called.
    NothingLost,
    /// No call fails that plain TCP would serve.
    NoCallFails,
    /// Something can go on, without the agent, until the readers got end of file or an error.
    NoHang,
    /// The psock queue is bounded.
    Bounded,
}

impl Property {
    const ALL: [Self; 5] = [
        Self::InOrder,
        Self::NothingLost,
        Self::NoCallFails,
        Self::NoHang,
        Self::Bounded,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::InOrder => "in order",
            Self::NothingLost => "nothing lost",
            Self::NoCallFails => "no call fails",
            Self::NoHang => "no hang",
            Self::Bounded => "bounded queue",
        }
    }
}

/// A property that does not hold, with the shortest way there.
pub struct Broken {
    /// Which.
    pub property: Property,
    /// Each step with the state after it.
    steps: Vec<(Option<Action>, State)>,
}

impl Broken {
    /// Steps that it takes.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.steps.len() - 1
    }
}

impl PartialEq for Broken {
    fn eq(&self, other: &Self) -> bool {
        self.property == other.property && self.steps == other.steps
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "not \"{}\":", self.property.name())?;
        for (number, (action, state)) in self.steps.iter().enumerate() {
            let action = action.map_or("start".to_owned(), |action| action.to_string());
            writeln!(f, "{number:3}. {action:36} {state}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// What the checker found.
#[derive(Debug)]
pub struct Checked {
    /// Properties that do not hold.
    pub broken: Vec<Broken>,
    /// Different states that were seen. All there are, if nothing is broken.
    pub states: usize,
    /// Whether some message was redirected behind one that took the kernel path.
    pub returned: bool,
    /// Whether both ends, once enrolled, became plain TCP.
    pub left: bool,
}

impl Case {
    /// Checks every order of everything that can happen.
    #[must_use]
    pub fn check(&self, rules: Rules) -> Checked {
        let machine = Machine { case: *self, rules };
        let checker = machine.checker().spawn_bfs().join();
        let discoveries = checker.discoveries();
        let broken = Property::ALL
            .into_iter()
            .filter(|property| discoveries.contains_key(property.name()))
            .map(|property| shortest(machine, property))
            .collect();
        Checked {
            broken,
            states: checker.unique_state_count(),
            returned: discoveries.contains_key(Machine::RETURNS),
            left: discoveries.contains_key(Machine::LEAVE),
        }
    }
}

/// The checker keeps the last way to a broken property that it saw (stateright 0.31), so it is asked
/// again with as few steps as will do.
fn shortest(machine: Machine, property: Property) -> Broken {
    (1..)
        .find_map(|depth| {
            let checker = machine.checker().target_max_depth(depth).spawn_bfs().join();
            let path = checker.discovery(property.name())?.into_vec();
            let mut before = None;
            let steps = path
                .into_iter()
                .map(|(state, next)| (std::mem::replace(&mut before, next), state))
                .collect();
            Some(Broken { property, steps })
        })
        .expect("what was found once is found again")
}
