//! Where the configuration comes from: a directory or a file, and flags.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kinds::{Adopt, Cgroup};
use super::mistake::{File, Mistake};
use super::setting::{Origin, Setting};
use super::{Config, check};

/// Read when no `--config` is given.
pub const DEFAULT_DIR: &str = "/etc/beeline";

/// The flags that choose the configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Sources {
    /// The configuration. Of a directory, config.toml and then conf.d/*.toml in the order of their
    /// names are read, as far as they exist: what a later file sets replaces what an earlier one
    /// set. A file is read alone [default: /etc/beeline]
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,

    /// Cover the processes of this cgroup2 directory, whatever the configuration says
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<PathBuf>,

    /// Whether connections are adopted that began before the agent or did not fit when they were made,
    /// where no rule says
    #[arg(long, value_enum, value_name = "SWITCH")]
    pub adopt: Option<Switch>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Switch {
    /// They are.
    On,
    /// They are left alone.
    Off,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Files say something that is not understood.
    #[error("{}", tell(.0))]
    Wrong(Vec<Mistake>),
}

fn tell(mistakes: &[Mistake]) -> String {
    let told: Vec<_> = mistakes.iter().map(ToString::to_string).collect();
    let plural = if told.len() == 1 { "" } else { "s" };
    let count = told.len();
    format!(
        "{count} mistake{plural} in the configuration\n\n{}",
        told.join("\n\n")
    )
}

impl Sources {
    /// A configuration, and no flags.
    #[must_use]
    pub fn of(config: &Path) -> Self {
        Self {
            config: Some(config.into()),
            ..Self::default()
        }
    }

    /// Reads everything.
    ///
    /// # Errors
    /// When something cannot be read, or with every mistake in all files.
    pub fn load(&self) -> Result<Config, Error> {
        let (mut config, mut mistakes) = (Config::default(), Vec::new());
        for file in self.read()? {
            mistakes.extend(check::apply(&mut config, &Arc::new(file)));
        }
        if !mistakes.is_empty() {
            return Err(Error::Wrong(mistakes));
        }
        if let Some(cgroup) = &self.cgroup {
            config.cgroup = Setting {
                value: Cgroup::Dir(cgroup.clone()),
                origin: Origin::Flag { flag: "--cgroup" },
            };
        }
        if let Some(adopt) = self.adopt {
            config.adopt = Setting {
                value: Adopt(adopt == Switch::On),
                origin: Origin::Flag { flag: "--adopt" },
            };
        }
        Ok(config)
    }

    /// The files as they are now, in their order.
    pub(super) fn read(&self) -> Result<Vec<File>, Error> {
        let read = |path: PathBuf| match fs::read_to_string(&path) {
            Ok(text) => Ok(File { path, text }),
            Err(error) => Err(cannot_read(&path)(error)),
        };
        self.files()?.into_iter().map(read).collect()
    }

    /// The directory or file that is read.
    pub(super) fn path(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_DIR))
    }

    /// The files that are read, in their order.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn files(&self) -> Result<Vec<PathBuf>, Error> {
        match &self.config {
            None => dir(Path::new(DEFAULT_DIR)),
            Some(path) if fs::metadata(path).map_err(cannot_read(path))?.is_dir() => dir(path),
            Some(path) => Ok(vec![path.clone()]),
        }
    }
}

fn dir(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let main = dir.join("config.toml");
    let exists = main.try_exists().map_err(cannot_read(&main))?;
    let mut files: Vec<_> = exists.then_some(main).into_iter().collect();
    files.extend(drop_ins(&dir.join("conf.d"))?);
    Ok(files)
}

/// Names with a dot in front are editors' own, as for a shell's `*`.
fn drop_ins(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(cannot_read(dir))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<_> = paths.collect::<Result<_, _>>().map_err(cannot_read(dir))?;
    let hidden = |path: &Path| {
        path.file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "toml") && !hidden(path));
    paths.sort();
    Ok(paths)
}

fn cannot_read(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_path_buf();
    |source| Error::Read { path, source }
}
