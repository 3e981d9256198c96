//! Settings as TOML for people.

use super::{Config, Described};

/// Wide enough for most settings.
const COLUMN: usize = 36;

/// Every setting with its value, and who chose it in a comment, and all rules; it can be used as a configuration.
#[must_use]
pub fn toml(config: &Config) -> String {
    let settings = tables(&config.describe(), |setting, name| {
        let line = format!("{name} = {}", setting.value);
        format!("{line:COLUMN$} # {}\n", setting.origin)
    });
    let rules = config.rules.iter().map(|rule| format!("\n{}", rule.toml()));
    settings + &rules.collect::<String>()
}

/// A file in which every setting is explained and commented out.
#[must_use]
pub fn example() -> String {
    let head = "# Beeline's configuration. Every setting is optional; remove the # in front of those to change.\n\
                # `beeline config check` finds mistakes, `beeline config show` prints what is set, and where.\n";
    let settings = tables(&Config::default().describe(), |setting, name| {
        let about = setting.about.replace('\n', "\n# ");
        let change = setting.change;
        format!(
            "\n# {about}\n# Put in force by: {change}.\n#{name} = {}\n",
            setting.example
        )
    });
    format!("{head}{settings}")
}

/// Settings under the names of their tables.
fn tables(settings: &[Described], mut write: impl FnMut(&Described, &str) -> String) -> String {
    let (mut text, mut current) = (String::new(), "");
    for setting in settings {
        let (table, name) = setting.key.split_once('.').unwrap_or(("", setting.key));
        if table != current {
            text += &format!("\n[{table}]\n");
            current = table;
        }
        text += &write(setting, name);
    }
    text
}
