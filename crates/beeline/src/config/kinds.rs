//! The kinds of values that settings have.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use bytesize::ByteSize;
use datapath::abi::Hist;
use datapath::hist::Kept;
use datapath::socket::Options;
use toml::Spanned;
use toml::de::DeValue;

use super::setting::{Kind, Wrong};

/// The processes that are covered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Cgroup {
    /// All.
    #[default]
    Host,
    /// Those of a cgroup2 directory and below.
    Dir(PathBuf),
}

impl Kind for Cgroup {
    const EXPECTED: &'static str =
        "the absolute path of a directory in the cgroup2 mount, or \"host\"";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        let text = string(value)?;
        match text {
            "host" => Ok(Self::Host),
            _ if text.starts_with('/') => Ok(Self::Dir(text.into())),
            _ => Err(vec![wrong(value, quoted(text))]),
        }
    }

    fn write(&self) -> String {
        match self {
            Self::Host => quoted("host"),
            Self::Dir(path) => quoted(&path.display().to_string()),
        }
    }
}

/// A number of connections that a map can be made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections(u32);

impl Connections {
    /// The number.
    #[must_use]
    pub fn count(self) -> u32 {
        self.0
    }
}

impl Default for Connections {
    fn default() -> Self {
        Self(Options::default().connections)
    }
}

impl Kind for Connections {
    const EXPECTED: &'static str = "a number from 1 to 16777216";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        let DeValue::Integer(number) = value.get_ref() else {
            return Err(vec![wrong_type(value)]);
        };
        let count = u32::from_str_radix(number.as_str(), number.radix()).ok();
        let count = count.filter(|count| (1..=1 << 24).contains(count));
        count
            .map(Self)
            .ok_or_else(|| vec![wrong(value, number.to_string())])
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// Bytes that may wait unread at one reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueLimit(u32);

impl QueueLimit {
    /// The bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        self.0
    }
}

impl Default for QueueLimit {
    fn default() -> Self {
        Self(Options::default().queue_limit)
    }
}

impl Kind for QueueLimit {
    const EXPECTED: &'static str = "a size from \"1B\" to less than \"4GiB\"";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        let bytes = size(value, 1..=u32::MAX.into())?;
        Ok(Self(u32::try_from(bytes).unwrap_or(u32::MAX)))
    }

    fn write(&self) -> String {
        written_size(self.0.into())
    }
}

/// Whether a connection may be enrolled later than when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adopt(pub bool);

impl Default for Adopt {
    fn default() -> Self {
        Self(true)
    }
}

impl Kind for Adopt {
    const EXPECTED: &'static str = "true or false";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        let adopt = value.get_ref().as_bool();
        adopt.map(Self).ok_or_else(|| vec![wrong_type(value)])
    }

    fn write(&self) -> String {
        self.0.to_string()
    }
}

/// Bytes of TCP memory in use on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimit(u64);

impl MemoryLimit {
    /// As the kernel counts it.
    #[must_use]
    pub fn pages(self) -> u64 {
        self.0 / rustix::param::page_size() as u64
    }
}

impl Default for MemoryLimit {
    fn default() -> Self {
        let page = rustix::param::page_size() as u64;
        Self(Options::default().memory_limit.saturating_mul(page))
    }
}

impl Kind for MemoryLimit {
    const EXPECTED: &'static str = "a size from \"64KiB\"";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        Ok(Self(size(value, 64 << 10..=u64::MAX)?))
    }

    fn write(&self) -> String {
        written_size(self.0)
    }
}

/// A pattern of paths of executables, in the words of a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executables(glob::Pattern);

impl Executables {
    /// Whether a path is one of them.
    #[must_use]
    pub fn matches(&self, path: &Path) -> bool {
        self.0.matches_path(path)
    }

    pub(super) fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Wrong> {
        let text = string(value)?;
        if !text.starts_with('/') {
            return Err(wrong(value, quoted(text)));
        }
        glob::Pattern::new(text).map(Self).map_err(|error| Wrong {
            hint: Some(format!("it is no pattern: {error}")),
            ..wrong(value, quoted(text))
        })
    }
}

impl fmt::Display for Executables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&quoted(self.0.as_str()))
    }
}

impl Kind for Vec<Executables> {
    const EXPECTED: &'static str =
        "an array of absolute paths, in which * and ? stand for other characters";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        each(value, Executables::read)
    }

    fn write(&self) -> String {
        array(self.iter().map(ToString::to_string))
    }
}

impl Kind for Kept {
    const EXPECTED: &'static str = "an array of names of histograms";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        Ok(each(value, histogram)?.into_iter().collect())
    }

    fn write(&self) -> String {
        let kept = Hist::ALL.iter().filter(|kind| self.contains(**kind));
        array(kept.map(|kind| quoted(kind.name())))
    }
}

fn histogram(value: &Spanned<DeValue<'_>>) -> Result<Hist, Wrong> {
    let text = string(value)?;
    let found = Hist::ALL.iter().copied().find(|kind| kind.name() == text);
    let names = || array(Hist::ALL.iter().map(|kind| kind.name().to_owned()));
    found.ok_or_else(|| Wrong {
        hint: Some(format!("there are {}", names().trim_matches(['[', ']']))),
        ..wrong(value, quoted(text))
    })
}

/// Where to listen, if at all. By default only processes of this host can reach it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl Default for Listen {
    fn default() -> Self {
        Self::At(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9474))
    }
}

impl Kind for Listen {
    const EXPECTED: &'static str = "an IP address with a port, or \"off\"";

    fn read(value: &Spanned<DeValue<'_>>) -> Result<Self, Vec<Wrong>> {
        let text = string(value)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        let addr = text.parse().map(Self::At);
        addr.map_err(|_| vec![wrong(value, quoted(text))])
    }

    fn write(&self) -> String {
        match self {
            Self::Off => quoted("off"),
            Self::At(addr) => quoted(&addr.to_string()),
        }
    }
}

/// `"4MiB"`, or a number of bytes.
fn size(value: &Spanned<DeValue<'_>>, range: RangeInclusive<u64>) -> Result<u64, Wrong> {
    let (bytes, found) = match value.get_ref() {
        DeValue::Integer(number) => (
            u64::from_str_radix(number.as_str(), number.radix()).ok(),
            number.to_string(),
        ),
        DeValue::String(text) => {
            let bytes = text.parse::<ByteSize>().map_err(|_| Wrong {
                hint: Some("units are B, KiB, MiB, GiB, TiB and KB, MB, GB, TB".into()),
                ..wrong(value, quoted(text))
            })?;
            (Some(bytes.as_u64()), quoted(text))
        }
        _ => return Err(wrong_type(value)),
    };
    let bytes = bytes.filter(|bytes| range.contains(bytes));
    bytes.ok_or_else(|| wrong(value, found))
}

/// The elements of an array, or all that are wrong.
pub(super) fn each<T>(
    value: &Spanned<DeValue<'_>>,
    read: impl Fn(&Spanned<DeValue<'_>>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Vec<Wrong>> {
    let DeValue::Array(elements) = value.get_ref() else {
        return Err(vec![wrong_type(value)]);
    };
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for element in elements.iter() {
        match read(element) {
            Ok(element) => good.push(element),
            Err(wrong) => bad.push(wrong),
        }
    }
    if bad.is_empty() { Ok(good) } else { Err(bad) }
}

/// One value, or an array of them with something in it.
pub(super) fn one_or_more<T>(
    value: &Spanned<DeValue<'_>>,
    one: impl Fn(&Spanned<DeValue<'_>>) -> Result<T, Wrong>,
) -> Result<Vec<T>, Vec<Wrong>> {
    match value.get_ref() {
        DeValue::Array(values) if values.is_empty() => Err(vec![nothing(value, "array")]),
        DeValue::Array(_) => each(value, one),
        _ => one(value).map(|one| vec![one]).map_err(Into::into),
    }
}

/// An array or table that asks for nothing.
pub(super) fn nothing(value: &Spanned<DeValue<'_>>, kind: &str) -> Wrong {
    Wrong {
        hint: Some("leave it out if it does not matter".into()),
        ..wrong(value, format!("an empty {kind}"))
    }
}

/// An array in TOML.
pub(super) fn array(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.collect::<Vec<_>>().join(", "))
}

/// Exact, in the largest unit that allows it.
fn written_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = |shift: &u32| bytes > 0 && bytes.trailing_zeros() >= *shift;
    match units.iter().find(|(shift, _)| fits(shift)) {
        Some((shift, unit)) => format!("\"{}{unit}\"", bytes >> shift),
        None => format!("\"{bytes}B\""),
    }
}

pub(super) fn string<'a>(value: &'a Spanned<DeValue<'_>>) -> Result<&'a str, Wrong> {
    value.get_ref().as_str().ok_or_else(|| wrong_type(value))
}

/// A string in TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.into()).to_string()
}

pub(super) fn wrong(value: &Spanned<DeValue<'_>>, found: String) -> Wrong {
    let span = value.span();
    let hint = None;
    Wrong { span, found, hint }
}

pub(super) fn wrong_type(value: &Spanned<DeValue<'_>>) -> Wrong {
    let kind = value.get_ref().type_str();
    let article = if kind.starts_with(['a', 'i']) {
        "an"
    } else {
        "a"
    };
    wrong(value, format!("{article} {kind}"))
}

impl From<Wrong> for Vec<Wrong> {
    fn from(wrong: Wrong) -> Self {
        vec![wrong]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_written_exactly() {
        let sizes = [0, 1, 1025, 4 << 10, 863_700 << 10, 4 << 20, 3 << 40];
        let written = sizes.map(written_size);
        let read = written
            .each_ref()
            .map(|size| size.trim_matches('"').parse());
        assert_eq!(read, sizes.map(|size| Ok(ByteSize(size))), "{written:?}");
        assert_eq!(written[5], "\"4MiB\"");
    }

    #[test]
    fn the_limit_for_the_host_is_in_pages() {
        let pages = (64 << 20) / rustix::param::page_size() as u64;
        assert_eq!(MemoryLimit(64 << 20).pages(), pages);
    }

    #[test]
    fn metrics_are_for_this_host_by_default() {
        assert!(matches!(Listen::default(), Listen::At(addr) if addr.ip().is_loopback()));
    }
}
