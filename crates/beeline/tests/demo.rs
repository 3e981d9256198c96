//! `beeline demo`: its numbers have the promised form, and it leaves nothing behind, whatever ends
//! it. What the numbers are is not tested: that would be a test of the machine.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use common::running::{BINARY, Running, output};
use rustix::process::Signal;
use serde_json::Value;
use testbed::{NetNs, kernel_test, link};

/// One short turn of each path per cell.
const QUICK: [&str; 4] = ["--rounds", "1", "--duration", "10ms"];

fn demo() -> Command {
    let mut command = Command::new(BINARY);
    command.arg("demo");
    command
}

fn running() -> Result<Running> {
    Running::start(&mut demo(), "beeline-demo")
}

/// Every number that a path has.
fn check_path(path: &Value) -> Result<()> {
    for field in ["p50_us", "p99_us", "gbps"] {
        let value = path[field]
            .as_f64()
            .with_context(|| format!("{field} in {path}"))?;
        // A turn of milliseconds on a busy machine may round to no throughput.
        ensure!(value >= 0.0 && value.is_finite(), "{field} in {path}");
    }
    ensure!(path["p50_us"].as_f64() > Some(0.0), "{path}");
    ensure!(path["p50_us"].as_f64() <= path["p99_us"].as_f64(), "{path}");
    Ok(())
}

fn check_cell(cell: &Value) -> Result<(String, String, u64)> {
    check_path(&cell["kernel"])?;
    check_path(&cell["beeline"])?;
    let ratio = cell["ratio"].as_f64().context("ratio")?;
    // One round: the smallest and the largest are the median.
    ensure!(
        cell["spread"] == serde_json::json!([ratio, ratio]),
        "spread of {cell}"
    );
    check_share(cell)?;
    let text = |field: &str| Some(cell[field].as_str()?.to_owned());
    let size = cell["size"].as_u64().context("size")?;
    Ok((
        text("scenario").context("scenario")?,
        text("load").context("load")?,
        size,
    ))
}

/// Every byte over every hop is redirected. Only a stream whose reader does not get its share of
/// the processor may fill its queue, and then it says so.
fn check_share(cell: &Value) -> Result<()> {
    let share = cell["redirected_share"]
        .as_f64()
        .context("redirected_share")?;
    let reasons = cell["reasons"].as_object().context("reasons")?;
    if share == 1.0 {
        ensure!(reasons.is_empty(), "reasons of {cell}");
        return Ok(());
    }
    ensure!(cell["load"] == "stream", "share of {cell}");
    ensure!(share > 0.9 && share < 1.0, "share of {cell}");
    ensure!(cell["kernel_bytes"].as_u64() > Some(0), "bytes of {cell}");
    ensure!(reasons.keys().eq(["queue_full"]), "reasons of {cell}");
    Ok(())
}

/// Scenario, load and size of all cells.
fn promised() -> BTreeSet<(String, String, u64)> {
    let mut cells = BTreeSet::from([("pod".into(), "stream".into(), 65_536)]);
    for scenario in ["pod", "service", "sidecar"] {
        for (load, size) in [("rr", 64), ("rr", 16_384), ("stream", 16_384)] {
            cells.insert((scenario.into(), load.into(), size));
        }
    }
    cells
}

kernel_test! {
    fn json_has_every_cell_and_every_byte_is_redirected() -> Result<()> {
        let links = link::names(&NetNs::current()?)?;
        let output = output(demo().arg("--json").args(QUICK).args(["--services", "10"]));
        let (text, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        ensure!(output.status.success() && errors.is_empty(), "{}: {errors}", output.status);
        let report: Value = serde_json::from_str(&text)?;
        let cells = report["cells"].as_array().context("cells")?;
        let found = cells.iter().map(check_cell).collect::<Result<BTreeSet<_>>>()?;
        assert_eq!((cells.len(), found), (promised().len(), promised()), "{text}");
        assert_eq!((&report["services"], &report["rounds"]), (&10.into(), &1.into()));
        assert_eq!(report["cores"].as_array().map(Vec::len), Some(1));
        assert_eq!(link::names(&NetNs::current()?)?, links);
        Ok(())
    }

    fn table_says_what_was_measured_and_that_a_core_is_shared() -> Result<()> {
        let output = output(demo().args(QUICK).args(["--services", "1"]));
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        for part in ["Linux ", "1 services", "both ends share core", "--cores 0,1", "Redirected"] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
        let widest = text.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "{widest:?} columns\n{text}");
        Ok(())
    }

    fn interrupted_demo_leaves_nothing() -> Result<()> {
        for signal in [Signal::INT, Signal::TERM] {
            let mut demo = running()?;
            assert!(demo.cgroup.exists());
            demo.signal(signal)?;
            let status = demo.wait()?;
            assert_eq!(status.code(), Some(130), "{signal:?}: {status}");
            assert!(!demo.cgroup.exists());
            demo.programs_are_gone()?;
        }
        Ok(())
    }

    fn killed_demo_leaves_an_empty_cgroup_that_the_next_one_removes() -> Result<()> {
        let mut demo = running()?;
        demo.signal(Signal::KILL)?;
        demo.wait()?;
        demo.programs_are_gone()?;
        // Another test's demo may have removed it already.
        let members = fs::read_to_string(demo.cgroup.join("cgroup.procs"));
        assert_eq!(members.unwrap_or_default(), "");
        let next = output(self::demo().args(QUICK));
        assert!(next.status.success());
        assert!(!demo.cgroup.exists());
        Ok(())
    }

    fn core_that_does_not_exist_is_refused() {
        for (cores, why) in [
            ("4095", "no core 4095 that this process may use, only 0"),
            ("0,x", "'x' is not the number of a core"),
            ("0,0,0", "one core or two, such as 0 or 0,1"),
        ] {
            let output = output(demo().args(["--cores", cores]));
            let errors = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{errors}");
            assert!(errors.contains("--cores") && errors.contains(why), "{errors}");
        }
    }

    fn user_is_told_to_be_root() -> Result<()> {
        // Where the binary is, others may not be let in.
        let copy = std::env::temp_dir().join(format!("beeline-demo-{}", std::process::id()));
        fs::copy(BINARY, &copy)?;
        let output = Command::new(&copy).arg("demo").uid(65534).gid(65534).output();
        fs::remove_file(&copy)?;
        let errors = String::from_utf8(output?.stderr)?;
        assert!(errors.contains("run it as root: sudo beeline demo"), "{errors}");
        Ok(())
    }
}
