//! What a setting is, and the one definition of them all.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use serde::Serialize;
use toml::Spanned;
use toml::de::DeValue;

/// A value, and who chose it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Who chose it.
    pub origin: Origin,
}

/// Who chose a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
pub enum Origin {
    /// Nobody: it is built in.
    Default,
    /// A line of a file, counted from 1.
    File {
        /// The file.
        file: PathBuf,
        /// The line.
        line: usize,
    },
    /// A flag on the command line.
    Flag {
        /// With its dashes.
        flag: &'static str,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File { file, line } => write!(f, "{}:{line}", file.display()),
            Self::Flag { flag } => f.write_str(flag),
        }
    }
}

/// What it takes to put another value in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// Saving the file, which the agent notices.
    Live,
    /// A restart of the agent, which leaves connections alone.
    Restart,
    /// `beeline detach` and a new start: it is built into pinned maps.
    Detach,
}

impl Change {
    /// Whether it can be done while the agent runs.
    #[must_use]
    pub fn is_live(self) -> bool {
        self == Self::Live
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "saving the file",
            Self::Restart => "restart the agent",
            Self::Detach => "beeline detach, then start the agent",
        })
    }
}

/// A setting as `beeline config` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Described {
    /// Its name, with the table that it is in: `socket.connections`.
    pub key: &'static str,
    /// Its value, in TOML.
    pub value: String,
    /// Who chose that.
    #[serde(flatten)]
    pub origin: Origin,
    /// What it would be if nobody had, in TOML.
    pub default: String,
    /// What puts another value in force.
    pub change: Change,
    /// What it is for.
    pub about: String,
    /// A value that makes sense, in TOML.
    #[serde(skip)]
    pub example: &'static str,
}

/// A kind of values: how they are read from TOML, and how they are written.
pub(super) trait Kind: Default {
    /// What belongs here, in words.
    const EXPECTED: &'static str;

    /// Reads a value.
    ///
    /// # Errors
    /// Every part that does not belong here.
    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>>;

    /// The value in TOML.
    fn write(&self) -> String;
}

/// A value that does not belong where it is.
#[derive(Debug)]
pub(super) struct Wrong {
    /// Where it is in the text.
    pub(super) span: Range<usize>,
    /// What it is, in words.
    pub(super) found: String,
    /// What to do, where more can be said than an example.
    pub(super) hint: Option<String>,
}

/// Makes `Config` out of lines of documentation, key, field, kind of values, example and what a
/// change takes; the default of a setting is that of its kind.
macro_rules! settings {
    ($(
        $(#[doc = $about:literal])+
        $key:literal $field:ident: $kind:ty, example $example:literal, $change:expr;
    )+) => {
        /// What can be configured.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Config {
            $($(#[doc = $about])+ pub $field: $crate::config::Setting<$kind>,)+
            /// The rules of all files, in their order.
            pub rules: Vec<$crate::config::Rule>,
        }

        impl Default for Config {
            fn default() -> Self {
                let origin = $crate::config::Origin::Default;
                Self {
                    $($field: $crate::config::Setting {
                        value: <$kind>::default(),
                        origin: origin.clone(),
                    },)+
                    rules: Vec::new(),
                }
            }
        }

        impl Config {
            /// The name of every setting and an example of its values.
            const EXAMPLES: &[(&str, &str)] = &[$(($key, $example)),+];

            /// Every setting, in the order of the example file.
            #[must_use]
            pub fn describe(&self) -> Vec<$crate::config::Described> {
                vec![$($crate::config::Described {
                    key: $key,
                    value: $crate::config::setting::Kind::write(&self.$field.value),
                    origin: self.$field.origin.clone(),
                    default: $crate::config::setting::Kind::write(&<$kind>::default()),
                    change: $change,
                    about: [$($about.trim()),+].join("\n"),
                    example: $example,
                }),+]
            }

            /// Sets what a file says. `None`: there is no such setting.
            fn set(
                &mut self,
                key: &str,
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                origin: $crate::config::Origin,
            ) -> Option<Result<(), $crate::config::setting::Unfit>> {
                use $crate::config::setting::Kind;
                match key {
                    $($key => Some(match <$kind>::read(value) {
                        Ok(value) => {
                            self.$field = $crate::config::Setting { value, origin };
                            Ok(())
                        }
                        Err(wrong) => Err($crate::config::setting::Unfit {
                            wrong,
                            expected: <$kind as Kind>::EXPECTED,
                        }),
                    }),)+
                    _ => None,
                }
            }
        }
    };
}

/// Why a value was not taken.
pub(super) struct Unfit {
    /// Every part that does not belong here.
    pub(super) wrong: Vec<Wrong>,
    /// What does.
    pub(super) expected: &'static str,
}

pub(super) use settings;
