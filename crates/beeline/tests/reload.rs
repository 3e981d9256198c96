//! `beeline reload`: all of the new settings are in force, or the old ones still are.

mod common;

use std::fs;
use std::path::PathBuf;

use common::load::Load;
use common::{Agent, Beeline, write_unnoticed};
use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Cgroup, kernel_test};

/// An agent with a configuration of its own.
struct Bed {
    _agent: Agent,
    beeline: Beeline,
    _dir: TempDir,
    file: PathBuf,
}

impl Bed {
    fn new(cgroup: &Cgroup) -> Self {
        let (beeline, dir) = (Beeline::new(cgroup), TempDir::new().unwrap());
        let file = dir.path().join("config.toml");
        fs::write(&file, "[socket]\nqueue_limit = \"1MiB\"\n").unwrap();
        let agent = beeline.agent_with(&["--config", dir.path().to_str().unwrap()]);
        Self {
            _agent: agent,
            beeline,
            _dir: dir,
            file,
        }
    }

    fn write(&self, text: &str) {
        write_unnoticed(&self.file, text);
    }

    fn limits(&self) -> (Value, Value) {
        let work = &self.beeline.status()["work"];
        (
            work["queue_limit_bytes"].clone(),
            work["memory_limit_bytes"].clone(),
        )
    }
}

kernel_test! {
    fn limits_change_under_load_and_lose_nothing(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        let load = Load::start();
        bed.write("[socket]\nqueue_limit = \"2MiB\"\nmemory_limit = \"64MiB\"\n");
        let out = bed.beeline.json(&["reload", "--json"]);
        assert_eq!(out["outcome"], "in_force", "{out}");
        let change = json!({"key": "socket.queue_limit", "old": "\"1MiB\"", "new": "\"2MiB\""});
        assert_eq!(out["changed"][0], change);
        assert_eq!(bed.limits(), ((2 << 20).into(), (64 << 20).into()));
        load.moves(10 << 20);
        load.finish();
        let again = bed.beeline.ok(&["reload"]);
        assert!(again.contains("nothing differs"), "{again}");
    }

    fn one_mistake_keeps_all_old_settings(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        let before = bed.limits();
        bed.write("[socket]\nqueue_limit = \"2MiB\"\nmemory_limit = \"much\"\n");
        let said = bed.beeline.fails(&["reload"]);
        assert!(said.contains("config.toml:3:16") && said.contains("stay in force"), "{said}");
        assert_eq!(bed.limits(), before);
    }

    fn a_setting_that_cannot_change_keeps_all_old_settings_and_says_what_to_do(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        let before = bed.limits();
        bed.write("[socket]\nqueue_limit = \"2MiB\"\nconnections = 10\n\n[http]\nlisten = \"off\"\n");
        let said = bed.beeline.fails(&["reload"]);
        for hint in [
            "socket.connections from 65536 to 10",
            "config.toml:3",
            "beeline detach",
            "http.listen",
            "restart the agent",
        ] {
            assert!(said.contains(hint), "{hint:?} is not in: {said}");
        }
        assert_eq!(bed.limits(), before);
        // The refused settings are not taken for the old ones.
        assert_eq!(bed.beeline.fails(&["reload"]), said);
    }

    fn without_an_agent_it_says_what_to_start(cgroup: &Cgroup) {
        let said = Beeline::new(cgroup).fails(&["reload"]);
        assert!(said.contains("beeline run"), "{said}");
    }
}
