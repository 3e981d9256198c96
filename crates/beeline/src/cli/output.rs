//! What the commands' output has in common.

use std::io::{self, BufWriter, StdoutLock, Write};

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::rows::Rows;
use crate::selftest::Report;

/// Bytes that are printed at once.
const BUFFER: usize = 64 << 10;

/// Prints one JSON document.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    print(|to| {
        serde_json::to_writer_pretty(&mut *to, value)?;
        writeln!(to)
    })
}

/// Prints one line.
pub(super) fn line(text: &str) -> Result<()> {
    print(|to| writeln!(to, "{text}"))
}

/// Prints a table of any number of rows.
pub(super) fn rows(rows: &Rows) -> Result<()> {
    print(|to| rows.write(table(&[]).width(), to))
}

/// A reader that went away, as in `| head`, ends the program quietly.
fn print(write: impl FnOnce(&mut BufWriter<StdoutLock<'_>>) -> io::Result<()>) -> Result<()> {
    let mut to = BufWriter::with_capacity(BUFFER, io::stdout().lock());
    match write(&mut to).and_then(|()| to.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        other => Ok(other?),
    }
}

/// What a self-test found, a line for each failure.
pub(super) fn self_test(report: &Report) -> Vec<String> {
    let good = report.checks - report.failures.len();
    let summary = format!(
        "self-test    {good} of {} checks as plain TCP, in {} ms",
        report.checks, report.milliseconds
    );
    let failures = report
        .failures
        .iter()
        .map(|failed| format!("  {}: {}: {}", failed.check, failed.found, failed.meaning));
    std::iter::once(summary).chain(failures).collect()
}

/// A table without lines that fits the terminal.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}

/// A number of bytes for people.
pub(super) fn bytes(count: u64) -> String {
    indicatif::HumanBytes(count).to_string()
}

/// A size for people, exact for those that are measured.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        _ => format!("{} KiB", bytes / 1024),
    }
}

/// About three digits; more are noise.
pub(super) fn digits(value: f64) -> String {
    let decimals = match value {
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.decimals$}")
}

/// Rounded down: 100 % means every byte.
pub(super) fn percent(share: f64) -> String {
    if share == 1.0 {
        "100 %".into()
    } else {
        format!("{:.2} %", (share * 1e4).floor() / 1e2)
    }
}

#[cfg(test)]
mod tests {
    use super::{digits, percent};

    #[test]
    fn three_digits_at_any_size() {
        assert_eq!([4.271, 42.71, 4271.4].map(digits), ["4.27", "42.7", "4271"]);
    }

    #[test]
    fn hundred_percent_means_every_byte() {
        assert_eq!(percent(1.0), "100 %");
        assert_eq!(percent(0.999_999_9), "99.99 %");
        assert_eq!(percent(0.0), "0.00 %");
    }
}
