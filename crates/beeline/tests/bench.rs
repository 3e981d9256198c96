//! `beeline bench`: its results have the promised form and cells, and it leaves nothing behind,
//! whatever ends it. What the numbers are is not tested: that would be a test of the machine.

mod common;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::running::{BINARY, Running, output};
use datapath::pins::{BPFFS, Pins};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testbed::process::is_alive;
use testbed::{Cgroup, NetNs, kernel_test, link, wait_for};

const SOON: Duration = Duration::from_secs(30);
/// Of the agents that it starts; its process id follows.
const INSTANCE: &str = "beeline-bench-";

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command.arg("bench").args(args);
    command
}

/// Runs it with short turns; what it puts into temporary directories comes into `dir`.
fn quick(dir: &Path, args: &[&str]) -> Output {
    let short = ["--rounds", "2", "--duration", "10ms", "--services", "5"];
    output(bench(args).args(short).env("TMPDIR", dir))
}

fn results(output: Output) -> Result<Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn cells(results: &Value) -> Result<&Vec<Value>> {
    results["cells"].as_array().context("cells")
}

fn is_empty(dir: &Path) -> Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

/// Every number that the turns of a variant have.
fn check_variant(cell: &Value, name: &str, metrics: &[&str]) -> Result<()> {
    let samples = cell["samples"][name].as_array().context("samples")?;
    ensure!(samples.len() == 2, "{name} in {cell:#}");
    for sample in samples.iter().chain([&cell[name]]) {
        for metric in metrics {
            let value = sample[*metric].as_f64();
            ensure!(
                value.is_some_and(f64::is_finite),
                "{metric} of {name} in {cell:#}"
            );
        }
    }
    Ok(())
}

/// The ratios are numbers within their quartiles, or none with quartiles that say why.
fn check_ratios(cell: &Value) -> Result<()> {
    for (name, ratio) in cell["ratios"].as_object().context("ratios")? {
        let spread = [0, 1].map(|n| ratio["spread"][n].as_f64().unwrap_or(f64::NAN));
        ensure!(spread[0] <= spread[1], "{name} in {cell:#}");
        if let Some(median) = ratio["median"].as_f64() {
            ensure!(
                spread[0] <= median && median <= spread[1],
                "{name} in {cell:#}"
            );
        } else {
            ensure!(
                ratio["median"].is_null() && spread[1] > spread[0],
                "{name} in {cell:#}"
            );
        }
    }
    Ok(())
}

/// No datapath is pinned that a benchmark left behind which has ended.
fn no_instance_is_left() -> Result<()> {
    let names = fs::read_dir(BPFFS)?
        .flatten()
        .map(|entry| entry.file_name());
    let left = |name: &OsString| {
        let pid = name
            .to_str()
            .and_then(|name| name.strip_prefix(INSTANCE)?.parse().ok());
        pid.is_some_and(|pid| !is_alive(pid))
    };
    let left: Vec<_> = names.filter(left).collect();
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn text<'a>(cell: &'a Value, field: &str) -> &'a str {
    cell[field].as_str().unwrap_or("-")
}

kernel_test! {
    fn three_sizes_are_a_picture() -> Result<()> {
        let (dir, temp) = (TempDir::new()?, TempDir::new()?);
        let path = dir.path().to_str().context("UTF-8")?;
        quick(temp.path(), &["--output", path, "--topology", "loopback", "--load", "rr", "--size", "1,64,1K"]);
        let picture = fs::read_to_string(dir.path().join("bench.svg"))?;
        assert!(picture.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""), "{picture}");
        // Three lines of three points, and three keys.
        assert_eq!(picture.matches("class=\"mark\"").count(), 12, "{picture}");
        for name in ["rr over sizes", "kernel path", "Beeline", "Unix socket"] {
            assert!(picture.contains(name), "{name} in {picture}");
        }
        Ok(())
    }

    fn every_combination_is_measured_and_told_in_json_and_html() -> Result<()> {
        let links = link::names(&NetNs::current()?)?;
        let (dir, temp) = (TempDir::new()?, TempDir::new()?);
        let path = dir.path().join("made/anew");
        let output = quick(temp.path(), &[
            "--json", "--output", path.to_str().context("UTF-8")?, "--topology", "bridge,loopback",
            "--load", "rr,stream,crr", "--size", "1,4K", "--connections", "1,4",
        ]);
        let results = results(output)?;
        let mut found = BTreeSet::new();
        for cell in cells(&results)? {
            let mut metrics = vec!["p50_us", "p99_us", "gbps", "per_second", "cpu_s_per_gb"];
            if cell["load"] != "stream" {
                metrics.push("cpu_s_per_million");
            }
            for variant in ["kernel", "beeline", "unix"] {
                check_variant(cell, variant, &metrics)?;
            }
            check_ratios(cell)?;
            let short = (text(cell, "topology"), text(cell, "load"), &cell["size"], &cell["connections"]);
            let observed = short == ("bridge", "rr", &1.into(), &1.into());
            assert_eq!(cell["observing"]["p50_us"]["spread"].is_array(), observed, "{cell:#}");
            assert!(cell["tool"].is_null() && cell["error"].is_null(), "{cell:#}");
            assert_eq!((&cell["services"], text(cell, "placement")), (&5.into(), "same"));
            found.insert(format!(
                "{} {} {} {}", text(cell, "topology"), text(cell, "load"), cell["size"], cell["connections"]
            ));
        }
        assert_eq!((found.len(), cells(&results)?.len()), (2 * 3 * 2 * 2, 2 * 3 * 2 * 2));
        for field in ["version", "time", "kernel", "cpu"] {
            assert!(results[field].as_str().is_some_and(|text| !text.is_empty()), "{field}");
        }
        assert!(results["sysctls"]["net.ipv4.tcp_rmem"].is_string());

        let file: Value = serde_json::from_slice(&fs::read(path.join("bench.json"))?)?;
        assert_eq!(file, results);
        let page = fs::read_to_string(path.join("bench.html"))?;
        for part in ["What observing costs", "crr 4 KiB, 4 conn.", "loopback, 5 services, same core", "<svg", "id=\"results\""] {
            assert!(page.contains(part), "{part}");
        }
        for outside in ["http://", "https://", "src="] {
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(is_empty(temp.path())?);
        assert_eq!(link::names(&NetNs::current()?)?, links);
        Ok(())
    }

    fn every_topology_is_redirected() -> Result<()> {
        let temp = TempDir::new()?;
        let ways = "bridge,routed,service,sidecar,loopback";
        let results = results(quick(temp.path(), &["--json", "--topology", ways, "--size", "100"]))?;
        let shares = cells(&results)?.iter().map(|cell| (text(cell, "topology"), cell["redirected_share"].as_f64()));
        let shares: Vec<_> = shares.collect();
        assert_eq!(shares, ways.split(',').map(|way| (way, Some(1.0))).collect::<Vec<_>>());
        Ok(())
    }

    fn many_connections_are_held_and_told_with_what_the_agent_takes() -> Result<()> {
        let (dir, temp) = (TempDir::new()?, TempDir::new()?);
        let path = dir.path().to_str().context("UTF-8")?;
        let short = ["--json", "--rounds", "2", "--duration", "10ms", "--scale", "10,300", "--output", path];
        let results = results(output(bench(&short).env("TMPDIR", temp.path())))?;
        assert!(cells(&results)?.is_empty());
        let scale = results["scale"].as_array().context("scale")?;
        let numbers: Vec<_> = scale.iter().map(|one| one["connections"].as_u64()).collect();
        assert_eq!(numbers, [Some(10), Some(300)]);
        let both = ["connects_per_second", "connect_cpu_us", "p50_us", "p99_us", "cpu_s_per_million", "connection_bytes"];
        let agent = ["agent_bytes", "agent_cpu_percent", "status_ms", "conns_ms"];
        for one in scale {
            assert!(one["error"].is_null(), "{one:#}");
            check_variant(one, "kernel", &both)?;
            check_variant(one, "beeline", &[&both[..], &agent].concat())?;
            check_ratios(one)?;
            assert!(one["extra_bytes"]["spread"].is_array(), "{one:#}");
            assert!(one["map_bytes"].as_u64() > Some(1 << 20) && one["room"] == 65_536, "{one:#}");
        }
        let page = fs::read_to_string(dir.path().join("bench.html"))?;
        for part in ["Many connections", "connections set up per second", "beeline status, ms", "<td class=\"number\">300</td>"] {
            assert!(page.contains(part), "{part}");
        }
        assert!(is_empty(temp.path())?);
        no_instance_is_left()
    }

    #[deadline(240)]
    fn programs_tell_their_numbers() -> Result<()> {
        let temp = TempDir::new()?;
        let output = quick(temp.path(), &["--json", "--tool", "qperf,iperf3,redis,wrk,pgbench"]);
        let results = results(output)?;
        let mut found = BTreeSet::new();
        for cell in cells(&results)? {
            let (tool, metric) = (text(cell, "tool"), text(cell, "metric"));
            assert!(cell["error"].is_null(), "{cell:#}");
            for variant in ["kernel", "beeline"] {
                check_variant(cell, variant, &[metric])?;
            }
            if ["redis", "pgbench"].contains(&tool) {
                check_variant(cell, "unix", &[metric])?;
            }
            assert!(text(&results["tools"], tool).len() > 3, "{tool}: {:#}", results["tools"]);
            found.insert((tool, metric));
        }
        assert_eq!(found, BTreeSet::from([
            ("qperf", "mean_us"), ("qperf", "gbps"), ("iperf3", "gbps"), ("redis", "per_second"),
            ("wrk", "per_second"), ("pgbench", "per_second"),
        ]));
        assert!(is_empty(temp.path())?);
        Ok(())
    }

    fn table_says_what_was_measured_and_how_to_read_it() -> Result<()> {
        let temp = TempDir::new()?;
        let output = quick(temp.path(), &["--load", "stream", "--size", "16K", "--connections", "2"]);
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        for part in ["Linux ", "2 rounds of 10 ms", "may be chance", "same core:", "stream", "16 KiB", "Gb/s", "quartiles"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        Ok(())
    }

    fn cell_that_fails_is_named_and_the_others_are_measured() -> Result<()> {
        let (temp, bin) = (TempDir::new()?, TempDir::new()?);
        let fake = bin.path().join("iperf3");
        fs::write(&fake, "#!/bin/sh\nexit 3\n")?;
        fs::set_permissions(&fake, fs::Permissions::from_mode(0o755))?;
        let path = format!("{}:{}", bin.path().display(), std::env::var("PATH")?);
        let mut command = bench(&["--json", "--rounds", "1", "--duration", "10ms", "--load", "rr", "--tool", "iperf3"]);
        let output = output(command.env("PATH", path).env("TMPDIR", temp.path()));
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stderr)?, "1 of 2 cells failed\n");
        let results: Value = serde_json::from_slice(&output.stdout)?;
        let errors: Vec<_> = cells(&results)?.iter().map(|cell| text(cell, "error")).collect();
        assert_eq!(errors[0], "-");
        assert!(errors[1].contains("the server of iperf3 ended instead of listening on port 8080"), "{errors:?}");
        Ok(())
    }

    fn interrupted_bench_leaves_nothing() -> Result<()> {
        for (signal, load) in [(Signal::INT, "--load=rr"), (Signal::TERM, "--tool=redis")] {
            let temp = TempDir::new()?;
            let mut command = bench(&[load, "--duration", "1s"]);
            let mut bench = Running::start(command.env("TMPDIR", temp.path()), "beeline-bench")?;
            let began = || bench.cgroup.exists() && is_empty(temp.path()).is_ok_and(|empty| !empty);
            wait_for("the first files", SOON, began)?;
            let members = bench.members();
            bench.signal(signal)?;
            let status = bench.wait()?;
            assert_eq!(status.code(), Some(130), "{signal:?}: {status}");
            assert!(!bench.cgroup.exists() && is_empty(temp.path())?);
            assert!(members.iter().all(|pid| !is_alive(*pid)));
            bench.programs_are_gone()?;
        }
        Ok(())
    }

    fn interrupted_bench_of_many_connections_takes_its_agent_off() -> Result<()> {
        let temp = TempDir::new()?;
        let mut command = bench(&["--scale", "1000", "--duration", "1s"]);
        let mut child = command.env("TMPDIR", temp.path()).stderr(Stdio::null()).spawn()?;
        let pins = Pins::of(&format!("{INSTANCE}{}", child.id()));
        wait_for("the agent", SOON, || pins.exist())?;
        kill_process(Pid::from_child(&child), Signal::INT)?;
        assert_eq!(child.wait()?.code(), Some(130));
        assert!(!pins.dir().exists() && is_empty(temp.path())?);
        Ok(())
    }

    /// PostgreSQL gives up being root, which resets the signal at its parent's death.
    fn killed_bench_takes_its_programs_along() -> Result<()> {
        let temp = TempDir::new()?;
        let mut command = bench(&["--tool", "pgbench", "--duration", "5s"]);
        let mut bench = Running::start(command.env("TMPDIR", temp.path()), "beeline-bench")?;
        // The server has processes of its own.
        wait_for("PostgreSQL", SOON, || bench.members().len() > 4)?;
        let members = bench.members();
        bench.signal(Signal::KILL)?;
        bench.wait()?;
        bench.programs_are_gone()?;
        wait_for("the end of PostgreSQL", SOON, || members.iter().all(|pid| !is_alive(*pid)))?;
        let memory = fs::read_to_string("/proc/sysvipc/shm")?;
        let creators = memory.lines().skip(1).filter_map(|line| line.split_whitespace().nth(4)?.parse().ok());
        assert!(creators.collect::<BTreeSet<u32>>().is_disjoint(&members), "{memory}");
        Cgroup::sweep("beeline-bench")?;
        assert!(!bench.cgroup.exists());
        Ok(())
    }

    fn wrong_arguments_say_what_is_expected() {
        for (args, code, why) in [
            (&["--topology", "ring"][..], 2, "possible values: bridge, routed, service, sidecar, loopback"),
            (&["--size", "2M"], 2, "a size is 1 to 1024K bytes, such as 64 or 16K"),
            (&["--connections", "0"], 2, "from 1 to 4096 connections"),
            (&["--scale", "0"], 2, "from 1 to 1000000 connections"),
            (&["--services", "20001"], 2, "0..=20000"),
            (&["--duration", "1ms"], 2, "a turn takes from 10ms to 60s"),
            (&["--cores", "4095"], 2, "no core 4095"),
            (&["--placement", "separate", "--cores", "0"], 1, "separate cores need two cores"),
            (&["--output", "/proc/nowhere"], 1, "cannot make /proc/nowhere"),
        ] {
            let output = output(&mut bench(args));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(code), "{args:?}: {errors}");
            assert!(errors.contains(why), "{args:?}: {errors}");
        }
    }

    fn missing_program_is_named_with_its_package() {
        let output = output(bench(&["--tool", "redis"]).env("PATH", "/nowhere"));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1));
        assert!(errors.contains("redis-benchmark is not installed (Debian's package redis-tools)"), "{errors}");
    }

    fn user_is_told_to_be_root() -> Result<()> {
        // Where the binary is, others may not be let in.
        let copy = std::env::temp_dir().join(format!("beeline-bench-{}", std::process::id()));
        fs::copy(BINARY, &copy)?;
        let output = Command::new(&copy).arg("bench").uid(65534).gid(65534).output();
        fs::remove_file(&copy)?;
        let errors = String::from_utf8(output?.stderr)?;
        assert!(errors.contains("run it as root: sudo beeline bench"), "{errors}");
        Ok(())
    }
}
