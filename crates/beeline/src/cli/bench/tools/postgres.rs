//! pgbench, select only, against a PostgreSQL of its own.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use testbed::process::NsCommand;
use testbed::wait_for;

use super::{Job, SOON, Told, locate, number_after, stop};
use crate::cli::bench::metric::{Metric, Sample};
use crate::cli::measure::bed::Bed;

pub(super) const PROGRAMS: &[(&str, &str)] = &[
    ("pgbench", "postgresql"),
    ("postgres", "postgresql"),
    ("initdb", "postgresql"),
    ("pg_isready", "postgresql-client"),
    ("setpriv", "util-linux"),
];
/// PostgreSQL refuses to be root: nobody and nogroup.
const USER: u32 = 65534;
/// Its superuser's name.
const ROLE: &str = "bench";

/// Looks in Debian's directories, the newest version first.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin").join(program)))
        })
        .filter(|(_, path)| path.is_file())
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path)
}

fn path(program: &str) -> Result<String> {
    let path = find(program).or_else(|| locate(program));
    let path = path.with_context(|| format!("{program} is not installed"))?;
    Ok(path.display().to_string())
}

fn data(dir: &Path) -> PathBuf {
    dir.join("postgres")
}

/// A program that gives up being root, and still ends with its parent: changing the user resets
/// that (prctl(2), PR_SET_PDEATHSIG). SIGQUIT has the server end at once and remove its shared
/// memory, which SIGKILL would leave.
fn as_user(command: NsCommand, program: &str) -> Result<NsCommand> {
    let user = USER.to_string();
    Ok(command.args([
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
        "--pdeathsig",
        "QUIT",
        "--",
        &path(program)?,
    ]))
}

/// Makes a database in `dir`.
pub(super) fn prepare(dir: &Path, bed: &Bed) -> Result<()> {
    let data = data(dir);
    fs::create_dir_all(&data)?;
    chown(&data, Some(USER), Some(USER))?;
    let text = data.display().to_string();
    let initdb = as_user(bed.server().command("setpriv"), "initdb")?;
    let args = [
        "-D",
        &text,
        "-A",
        "trust",
        "-U",
        ROLE,
        "--no-sync",
        "-E",
        "UTF8",
    ];
    initdb.args(args).run()?;
    let rules = data.join("pg_hba.conf");
    fs::write(
        &rules,
        "local all all trust\nhost all all 0.0.0.0/0 trust\n",
    )?;
    let port = bed.listen().port().to_string();
    let mut server = start(bed, dir, &port)?.spawn()?;
    ready(bed, dir, &port)?;
    let fill = bed.server().command(&path("pgbench")?);
    let args = [
        "-i", "-q", "-s", "1", "-U", ROLE, "-h", &text, "-p", &port, "postgres",
    ];
    fill.args(args).run()?;
    stop(&mut server)
}

fn start(bed: &Bed, dir: &Path, port: &str) -> Result<NsCommand> {
    let data = data(dir).display().to_string();
    let settings = [
        "listen_addresses=*".to_owned(),
        format!("unix_socket_directories={data}"),
        "fsync=off".to_owned(),
        "autovacuum=off".to_owned(),
        "max_connections=600".to_owned(),
        "dynamic_shared_memory_type=mmap".to_owned(),
    ];
    let server = as_user(bed.server().command("setpriv"), "postgres")?;
    let server = server.args(["-D", &data, "-p", port]);
    let settings = settings.iter().flat_map(|setting| ["-c", setting]);
    Ok(server.args(settings).with(|command| {
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
    }))
}

/// Asks over the Unix socket, as a TCP connection would be counted.
fn ready(bed: &Bed, dir: &Path, port: &str) -> Result<()> {
    let (program, dir) = (path("pg_isready")?, data(dir).display().to_string());
    let asks = || {
        let ask = bed.server().command(&program);
        ask.args(["-q", "-h", &dir, "-p", port]).run().is_ok()
    };
    Ok(wait_for("the start of PostgreSQL", SOON, asks)?)
}

pub(super) fn server(job: &Job<'_>, dir: &Path) -> Result<NsCommand> {
    start(job.bed, dir, &job.port())
}

pub(super) fn wait(job: &Job<'_>, dir: &Path) -> Result<()> {
    ready(job.bed, dir, &job.port())
}

pub(super) fn client(job: &Job<'_>, dir: &Path) -> Result<NsCommand> {
    let host = if job.over_unix {
        data(dir).display().to_string()
    } else {
        job.to().ip().to_string()
    };
    let client = job.client(&path("pgbench")?);
    Ok(client.args([
        "-S",
        "-n",
        "-j",
        "1",
        "-c",
        &job.cell.connections.to_string(),
        "-T",
        &job.seconds().to_string(),
        "-U",
        ROLE,
        "-h",
        &host,
        "-p",
        &job.port(),
        "postgres",
    ]))
}

pub(super) fn read(text: &str) -> Result<Told> {
    let (per_second, _) = number_after(text, "tps").context("no tps")?;
    let (millis, _) = number_after(text, "latency average").context("no latency")?;
    let label = "number of transactions actually processed";
    let (requests, _) = number_after(text, label).context("no number of transactions")?;
    Ok(Told {
        sample: Sample::from([
            (Metric::PerSecond, per_second),
            (Metric::MeanUs, millis * 1e3),
        ]),
        bytes: None,
        requests: Some(requests),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rate_and_mean_are_read() {
        let text = "number of transactions actually processed: 12345\n\
                    number of failed transactions: 0 (0.000%)\n\
                    latency average = 0.081 ms\n\
                    initial connection time = 2.000 ms\n\
                    tps = 12350.123456 (without initial connection time)\n";
        let told = read(text).unwrap();
        assert_eq!(told.sample[&Metric::MeanUs], 81.0);
        assert_eq!(told.sample[&Metric::PerSecond], 12350.123456);
        assert_eq!(told.requests, Some(12345.0));
        assert!(read("pgbench: error: connection failed").is_err());
    }
}
