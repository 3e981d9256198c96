//! A filter as one line of text: `nginx port:80,443 path:kernel`.

use std::fmt;
use std::str::FromStr;

use datapath::abi::Reason;

use super::{BadAddress, Filter};
use crate::observe::route::BadRoute;

/// Why a line is no filter.
#[derive(Debug, thiserror::Error)]
pub enum BadFilter {
    /// Of `key:value`.
    #[error("there is no {0}: to filter by; use port:, address:, path: or reason:")]
    Key(String),
    /// Not a number, or too large.
    #[error("{0:?} is no port")]
    Port(String),
    /// As [`BadAddress`] says.
    #[error("{0:?} is no address: {1}")]
    Address(String, BadAddress),
    /// As [`BadRoute`] says.
    #[error("{0:?} is no path: {1}")]
    Route(String, BadRoute),
    /// None that `beeline status` counts.
    #[error("there is no reason {0:?}; those there are: {list}", list = reasons())]
    Reason(String),
}

impl FromStr for Filter {
    type Err = BadFilter;

    fn from_str(text: &str) -> Result<Self, BadFilter> {
        let mut filter = Self::default();
        for term in text.split_whitespace() {
            filter.add(term)?;
        }
        Ok(filter)
    }
}

impl Filter {
    fn add(&mut self, term: &str) -> Result<(), BadFilter> {
        if let Ok(address) = term.parse() {
            self.addresses.push(address);
            return Ok(());
        }
        match term.split_once(':') {
            None => self.words.push(term.into()),
            Some((key, values)) => {
                for value in values.split(',') {
                    self.add_value(key, value)?;
                }
            }
        }
        Ok(())
    }

    fn add_value(&mut self, key: &str, value: &str) -> Result<(), BadFilter> {
        let own = || value.to_string();
        match key {
            "port" => {
                let port = value.parse().map_err(|_| BadFilter::Port(own()))?;
                self.ports.push(port);
            }
            "address" => {
                let address = value.parse();
                self.addresses
                    .push(address.map_err(|error| BadFilter::Address(own(), error))?);
            }
            "path" => {
                let route = value.parse();
                self.routes
                    .push(route.map_err(|error| BadFilter::Route(own(), error))?);
            }
            "reason" => self
                .reasons
                .push(reason(value).ok_or_else(|| BadFilter::Reason(own()))?),
            _ => return Err(BadFilter::Key(key.into())),
        }
        Ok(())
    }
}

fn reason(name: &str) -> Option<Reason> {
    Reason::ALL
        .iter()
        .copied()
        .find(|reason| reason.name() == name)
}

fn reasons() -> String {
    let names: Vec<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
    names.join(", ")
}

/// What parses to the same filter, but for events, which no line names.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> = self.reasons.iter().map(|reason| reason.name()).collect();
        let mut terms = self.words.clone();
        for (key, values) in [
            ("port", join(&self.ports)),
            ("address", join(&self.addresses)),
            ("path", join(&self.routes)),
            ("reason", reasons.join(",")),
        ] {
            if !values.is_empty() {
                terms.push(format!("{key}:{values}"));
            }
        }
        f.write_str(&terms.join(" "))
    }
}

fn join(values: &[impl ToString]) -> String {
    let texts: Vec<_> = values.iter().map(ToString::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_as_it_is_written() {
        let text = "nginx port:80,443 address:10.0.0.0/8,fd00::1 path:kernel reason:queue_full";
        assert_eq!(text.parse::<Filter>().unwrap().to_string(), text);
        let short: Filter = "10.0.0.1:80 fd00::1".parse().unwrap();
        assert_eq!(short.to_string(), "address:10.0.0.1:80,fd00::1");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, hint) in [
            ("prt:80", "port:"),
            ("port:http", "http"),
            ("port:70000", "70000"),
            ("address:nginx", "10.0.0.0/8"),
            ("path:fast", "mixed"),
            ("reason:full", "queue_full"),
        ] {
            let said = text.parse::<Filter>().unwrap_err().to_string();
            assert!(said.contains(hint), "{text}: {said}");
        }
    }
}
