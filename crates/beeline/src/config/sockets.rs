//! Who is asked for names and labels of containers.

use std::path::PathBuf;

use toml::Spanned;
use toml::de::DeValue;

use super::kinds::{array, each, quoted, string, wrong};
use super::setting::{Kind, Wrong};

/// Unix sockets on which Docker's API is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sockets(pub Vec<PathBuf>);

impl Default for Sockets {
    fn default() -> Self {
        Self(
            ["/run/docker.sock", "/run/podman/podman.sock"]
                .map(PathBuf::from)
                .into(),
        )
    }
}

impl Kind for Sockets {
    const EXPECTED: &'static str = "an array of absolute paths of sockets";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        each(value, socket).map(Self)
    }

    fn write(&self) -> String {
        array(
            self.0
                .iter()
                .map(|path| quoted(&path.display().to_string())),
        )
    }
}

fn socket(value: &Spanned<DeValue<'_>>) -> Result<PathBuf, Wrong> {
    let text = string(value)?;
    if text.starts_with('/') {
        return Ok(text.into());
    }
    let path = text
        .strip_prefix("unix://")
        .filter(|rest| rest.starts_with('/'));
    Err(Wrong {
        hint: path.map(|path| format!("write the path alone: {}", quoted(path))),
        ..wrong(value, quoted(text))
    })
}
