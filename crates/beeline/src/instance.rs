//! The name of a datapath, and the places that follow from it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use datapath::pins::Pins;

/// A datapath on this host. Usually there is one; tests and trials make others beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance(String);

/// Why a string is no name of an instance.
#[derive(Debug, thiserror::Error)]
#[error("it needs 1 to 48 of the characters a-z, 0-9, - and _")]
pub struct BadName;

impl FromStr for Instance {
    type Err = BadName;

    fn from_str(name: &str) -> Result<Self, BadName> {
        let plain =
            |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'_');
        let fits = (1..=48).contains(&name.len()) && name.bytes().all(plain);
        fits.then(|| Self(name.into())).ok_or(BadName)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Instance {
    /// Where its maps and links are pinned.
    #[must_use]
    pub fn pins(&self) -> Pins {
        Pins::of(&self.0)
    }

    /// The directory of its agent's files.
    #[must_use]
    pub fn runtime_dir(&self) -> PathBuf {
        Path::new("/run").join(&self.0)
    }

    /// Held by whoever changes the datapath: an agent, or a detach.
    #[must_use]
    pub fn lock_file(&self) -> PathBuf {
        self.runtime_dir().join("lock")
    }

    /// What the self-test of the agent that started last had found.
    #[must_use]
    pub fn self_test_file(&self) -> PathBuf {
        self.runtime_dir().join("self-test.json")
    }

    /// Where the agent answers.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.runtime_dir().join("control.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for bad in ["", ".", "..", "a/b", "A", "a b", &"x".repeat(49)] {
            assert!(bad.parse::<Instance>().is_err(), "{bad:?}");
        }
        assert_eq!(
            "beeline-2_x".parse::<Instance>().unwrap().to_string(),
            "beeline-2_x"
        );
    }
}
