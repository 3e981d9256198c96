//! The group that may ask the agent.

use std::fs;
use std::path::Path;

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{quoted, string, wrong};
use super::setting::{Kind, Wrong};

/// Local groups. Those of a directory service may be missing while the host boots.
const GROUPS: &str = "/etc/group";

/// Who may ask the agent beside root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Group {
    /// Nobody.
    #[default]
    Root,
    /// Members of a local group.
    Named {
        /// Its name.
        name: String,
        /// Its id.
        id: u32,
    },
}

impl Kind for Group {
    const EXPECTED: &'static str = "the name of a group of this host, or \"root\" for root alone";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        let name = string(value)?;
        if name == "root" {
            return Ok(Self::Root);
        }
        let unknown = |hint| Wrong {
            hint: Some(hint),
            ..wrong(value, quoted(name))
        };
        let groups = fs::read_to_string(Path::new(GROUPS))
            .map_err(|error| unknown(format!("cannot read {GROUPS}: {error}")))?;
        match id(&groups, name) {
            Some(id) => Ok(Self::Named {
                name: name.into(),
                id,
            }),
            None => Err(vec![unknown(format!(
                "{GROUPS} has no such group: make it first, with `groupadd --system`"
            ))]),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Root => quoted("root"),
            Self::Named { name, .. } => quoted(name),
        }
    }
}

/// The id of a group, from lines of name, password, id and members (group(5)).
fn id(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::id;

    #[test]
    fn groups_are_found_by_their_whole_names() {
        let groups = "root:x:0:\nadm:x:4:syslog,ann\n\n# none\nadmins:x:1001:\n+::::\n";
        let ids = ["adm", "admins", "ad", "ann", "", "# none"].map(|name| id(groups, name));
        assert_eq!(ids, [Some(4), Some(1001), None, None, None, None]);
    }
}
