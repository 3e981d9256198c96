//! The socket path's switching protocol as a state machine that stateright checks exhaustively.
//!
//! One direction of one connection: a sender, the kernel's queues at the reader's socket, one or
//! two readers, and everything that may happen to them at any moment. What BPF decides is in
//! `bpf`, under the names it has in `crates/datapath/bpf`; what the kernel does is in
//! `sender`, `tcp` and `reader`; what the agent does is in `agent`. `docs/model.md` says which rule
//! stands for which line of BPF, and what is left out.
//!
//! Each rule of the protocol is a [`Rule`] that can be taken out, to see that the model then finds
//! what the rule is there for. To add one: a line in [`Rule`], and the place that asks for it.
//!
//! ```
//! use model::{Case, Property, Rule, Rules};
//!
//! let case = Case::default();
//! assert_eq!(case.check(Rules::all()).broken, []);
//! let found = case.check(Rules::all().without(Rule::Arrived)).broken;
//! assert!(found.iter().any(|broken| broken.property == Property::InOrder));
//! ```

mod action;
mod agent;
mod bpf;
mod case;
mod machine;
mod reader;
mod report;
mod rules;
mod sender;
mod show;
mod state;
mod tcp;

pub use action::Action;
pub use case::{Case, Enrolments, File, HalfClose, Reads};
pub use machine::Machine;
pub use report::{Broken, Checked, Property};
pub use rules::{Rule, Rules};
