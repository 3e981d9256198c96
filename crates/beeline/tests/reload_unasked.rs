//! SIGHUP, and files that change: as `beeline reload`, and told in the log.

mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Child;

use common::load::Load;
use common::{Beeline, SOON, pair, write_unnoticed};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use testbed::{Cgroup, kernel_test, wait_for};

const MISTAKE: &str = "[socket]\nqueue_limit = \"2MiB\"\nmemory_limit = \"much\"\n";
const EXCLUDE: &str = "[[rule]]\npath = \"kernel\"\nlocal = { uid = 0 }\n";

/// An agent with a configuration and a log of its own.
struct Bed {
    beeline: Beeline,
    child: Child,
    dir: TempDir,
    log: TempDir,
}

impl Bed {
    /// Configured by a directory.
    fn new(cgroup: &Cgroup) -> Self {
        Self::of(cgroup, "")
    }

    /// Configured by that file of the directory.
    fn of(cgroup: &Cgroup, file: &str) -> Self {
        let (dir, log) = (TempDir::new().unwrap(), TempDir::new().unwrap());
        fs::write(dir.path().join("config.toml"), limit("1MiB")).unwrap();
        let beeline = Beeline::new(cgroup);
        let config = dir.path().join(file);
        let child = beeline
            .command(&["run", "--log", "json", "--cgroup", &beeline.cgroup])
            .arg("--config")
            .arg(config)
            .stderr(File::create(log.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        let bed = Self {
            beeline,
            child,
            dir,
            log,
        };
        let serves = || bed.beeline.status()["agent"].is_object();
        wait_for("the agent", SOON, serves).unwrap();
        bed
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// What it has said with that in it.
    fn said(&self, word: &str) -> Vec<Value> {
        let log = fs::read_to_string(self.log.path().join("log")).unwrap();
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let has = |line: &Value| line["message"].as_str().unwrap().contains(word);
        lines.filter(has).collect()
    }

    /// Waits until it says that.
    fn says(&self, word: &str) -> Value {
        let wait = wait_for(word, SOON, || !self.said(word).is_empty());
        wait.unwrap_or_else(|error| panic!("{error}; it said {:?}", self.said("")));
        self.said(word).pop().unwrap()
    }

    fn queue_limit(&self) -> Value {
        self.beeline.status()["work"]["queue_limit_bytes"].clone()
    }

    fn becomes(&self, limit: u64) {
        let is = || self.queue_limit() == limit;
        wait_for(&format!("the limit {limit}"), SOON, is).unwrap();
    }

    /// Connections that rules left alone.
    fn excluded(&self) -> u64 {
        let reasons = &self.beeline.status()["work"]["reasons"];
        reasons["excluded"].as_u64().unwrap_or(0)
    }

    fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        self.child.wait().unwrap().success()
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn limit(size: &str) -> String {
    format!("[socket]\nqueue_limit = \"{size}\"\n")
}

/// Where the mistake is, and what to do, in a warning.
fn tells_the_mistake(warning: &Value) {
    let message = warning["message"].as_str().unwrap();
    assert_eq!(warning["level"], "WARN");
    for part in ["old settings stay", "config.toml:3:16", "= help:"] {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

kernel_test! {
    fn sighup_puts_a_new_rule_in_force_and_the_agent_goes_on(cgroup: &Cgroup) {
        let mut bed = Bed::new(cgroup);
        drop(pair());
        assert_eq!(bed.excluded(), 0);
        write_unnoticed(&bed.file("config.toml"), &(limit("2MiB") + EXCLUDE));
        bed.signal(Signal::HUP);
        let told = bed.says("reloaded on SIGHUP: socket.queue_limit is \"2MiB\", was \"1MiB\"");
        assert_eq!(told["level"], "INFO");
        bed.becomes(2 << 20);
        drop(pair());
        assert!(bed.excluded() > 0);
        assert!(bed.stop());
    }

    fn a_file_that_is_saved_replaced_added_or_removed_is_in_force(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        fs::write(bed.file("config.toml"), limit("2MiB")).unwrap();
        bed.becomes(2 << 20);
        fs::write(bed.file(".config.toml.swp"), limit("3MiB")).unwrap();
        fs::rename(bed.file(".config.toml.swp"), bed.file("config.toml")).unwrap();
        bed.becomes(3 << 20);
        fs::create_dir(bed.file("conf.d")).unwrap();
        fs::write(bed.file("conf.d/50-limits.toml"), limit("4MiB")).unwrap();
        bed.becomes(4 << 20);
        fs::remove_file(bed.file("conf.d/50-limits.toml")).unwrap();
        bed.becomes(3 << 20);
        fs::write(bed.file("conf.d/60-rules.toml"), EXCLUDE).unwrap();
        bed.says("a change of the configuration's files: rule is");
        drop(pair());
        assert!(bed.excluded() > 0);
    }

    fn the_target_of_a_link_may_change_and_the_link(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        let elsewhere = TempDir::new().unwrap();
        let target = elsewhere.path().join("beeline.toml");
        fs::write(&target, limit("2MiB")).unwrap();
        fs::remove_file(bed.file("config.toml")).unwrap();
        std::os::unix::fs::symlink(&target, bed.file("config.toml")).unwrap();
        bed.becomes(2 << 20);
        fs::write(&target, limit("3MiB")).unwrap();
        bed.becomes(3 << 20);
    }

    fn a_mistake_keeps_the_old_settings_and_is_told_once(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        fs::write(bed.file("config.toml"), MISTAKE).unwrap();
        tells_the_mistake(&bed.says("a change of the configuration's files"));
        bed.signal(Signal::HUP);
        tells_the_mistake(&bed.says("on SIGHUP"));
        assert_eq!(bed.queue_limit(), 1 << 20);
        fs::write(bed.file("unrelated"), "").unwrap();
        fs::write(bed.file("config.toml"), limit("2MiB")).unwrap();
        bed.becomes(2 << 20);
        assert_eq!(bed.said("not reloaded").len(), 2);
    }

    fn a_named_file_that_is_gone_keeps_the_old_settings(cgroup: &Cgroup) {
        let bed = Bed::of(cgroup, "config.toml");
        fs::remove_file(bed.file("config.toml")).unwrap();
        let told = bed.says("not reloaded on a change of the configuration's files");
        assert!(told["message"].as_str().unwrap().contains("cannot read the configuration"), "{told}");
        assert_eq!(bed.queue_limit(), 1 << 20);
        fs::write(bed.file("config.toml"), limit("2MiB")).unwrap();
        bed.becomes(2 << 20);
    }

    fn nothing_is_said_where_nothing_changes(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        fs::write(bed.file("config.toml"), limit("1MiB")).unwrap();
        bed.signal(Signal::HUP);
        bed.beeline.ok(&["reload"]);
        fs::write(bed.file("config.toml"), limit("2MiB")).unwrap();
        bed.says("2MiB");
        assert_eq!(bed.said("reload").len(), 1, "{:?}", bed.said(""));
    }

    fn reloads_from_all_sides_at_once_and_a_stop_among_them_lose_nothing(cgroup: &Cgroup) {
        let mut bed = Bed::new(cgroup);
        let load = Load::start();
        for n in 1..30 {
            let text = limit(&format!("{n}MiB")) + &EXCLUDE.replace("uid = 0", &format!("uid = {n}"));
            fs::write(bed.file("config.toml"), text).unwrap();
            bed.signal(Signal::HUP);
            bed.beeline.ok(&["reload"]);
            assert_eq!(bed.queue_limit(), n << 20);
        }
        load.moves(4 << 20);
        fs::write(bed.file("config.toml"), limit("50MiB") + EXCLUDE).unwrap();
        bed.signal(Signal::HUP);
        assert!(bed.stop());
        drop(bed.beeline.agent());
        load.moves(4 << 20);
        load.finish();
    }
}
