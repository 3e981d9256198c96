//! Trying something that the kernel may refuse, and keeping the words of the refusal.

use std::cell::RefCell;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use libbpf_rs::{ErrorKind, PrintLevel, set_print};

use crate::{Error, Result};

/// How the kernel answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// It did what was asked.
    Works,
    /// It did not.
    Refused(Refusal),
}

/// A refusal in the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was tried, and the error.
    pub error: String,
    /// What the verifier or libbpf objected to, if either said so.
    pub objection: Option<String>,
    /// Whether the error was EPERM or EACCES.
    pub permission: bool,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)?;
        match &self.objection {
            Some(objection) => write!(f, ": {objection}"),
            None => Ok(()),
        }
    }
}

/// Runs `action`, which loads or attaches BPF programs, with libbpf's messages kept instead of
/// printed.
///
/// # Errors
/// When it failed for another reason than a refusal of the kernel.
pub(super) fn attempt<T>(action: impl FnOnce() -> Result<T>) -> Result<Attempt> {
    Ok(match asked(action)? {
        Ok(_) => Attempt::Works,
        Err(refusal) => Attempt::Refused(refusal),
    })
}

/// Runs `action` likewise, and returns what it did or the kernel's refusal.
///
/// # Errors
/// When it failed for another reason than a refusal of the kernel.
pub fn asked<T>(action: impl FnOnce() -> Result<T>) -> Result<Result<T, Refusal>> {
    let (result, messages) = listening(action);
    match result {
        Ok(done) => Ok(Ok(done)),
        Err(Error::Bpf {
            action,
            what,
            source,
        }) => Ok(Err(Refusal {
            error: format!("cannot {action} {what}: {source}"),
            objection: objection(&messages),
            permission: source.kind() == ErrorKind::PermissionDenied,
        })),
        Err(error) => Err(error),
    }
}

thread_local! {
    /// What libbpf said to this thread while it was listening.
    static HEARD: RefCell<String> = const { RefCell::new(String::new()) };
}

/// libbpf has one callback for the whole process: two listeners must not restore each other's.
static LISTENING: Mutex<()> = Mutex::new(());

fn listening<T>(action: impl FnOnce() -> T) -> (T, String) {
    let _alone = LISTENING.lock().unwrap_or_else(PoisonError::into_inner);
    HEARD.take();
    let before = set_print(Some((PrintLevel::Info, hear)));
    let result = action();
    set_print(before);
    (result, HEARD.take())
}

fn hear(_: PrintLevel, message: String) {
    HEARD.with_borrow_mut(|heard| heard.push_str(&message));
}

/// The line that says why: the last of the verifier's log before its statistics, else the first of
/// libbpf's.
fn objection(messages: &str) -> Option<String> {
    const BEGIN: &str = "-- BEGIN PROG LOAD LOG --";
    const END: &str = "-- END PROG LOAD LOG --";
    let verifier = messages.split_once(BEGIN).and_then(|(_, rest)| {
        let log = rest.split(END).next().unwrap_or(rest);
        log.lines().map(str::trim).rfind(|line| is_objection(line))
    });
    let libbpf = || {
        let mut lines = messages
            .lines()
            .filter_map(|line| line.strip_prefix("libbpf: "));
        lines.find(|line| !line.contains("BTF is optional"))
    };
    verifier.or_else(libbpf).map(str::to_owned)
}

/// Not one of the statistics at the end of the verifier's log, nor libbpf's frame around it.
fn is_objection(line: &str) -> bool {
    const STATISTICS: [&str; 5] = [
        "processed ",
        "verification time",
        "stack depth",
        "insns_",
        "libbpf:",
    ];
    !line.is_empty() && !STATISTICS.iter().any(|start| line.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_before_the_statistics_says_why() {
        let log = "libbpf: prog 'p': BPF program load failed: -EACCES\n\
                   libbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n\
                   0: (79) r1 = *(u64 *)(r1 +0)\n\
                   invalid bpf_context access off=0 size=8\n\
                   processed 1 insns (limit 1000000) max_states_per_insn 0\n\
                   libbpf: -- END PROG LOAD LOG --\n\
                   libbpf: prog 'p': failed to load: -EACCES\n";
        assert_eq!(
            objection(log).as_deref(),
            Some("invalid bpf_context access off=0 size=8")
        );
    }

    #[test]
    fn without_a_log_the_first_words_of_libbpf_say_why() {
        let log = "libbpf: map 'socks': failed to create: -EINVAL\n\
                   libbpf: failed to load object 'socket'\n";
        assert_eq!(
            objection(log).as_deref(),
            Some("map 'socks': failed to create: -EINVAL")
        );
        let empty = "libbpf: prog 'p': BPF program load failed: -EPERM\n\
                     libbpf: prog 'p': -- BEGIN PROG LOAD LOG --\n\
                     libbpf: -- END PROG LOAD LOG --\n";
        assert_eq!(
            objection(empty).as_deref(),
            Some("prog 'p': BPF program load failed: -EPERM")
        );
        assert_eq!(objection(""), None);
    }
}
