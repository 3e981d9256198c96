//! A Podman of its own, whose containers are made and never run.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use testbed::{Cgroup, wait_for};

use super::SOON;

/// Podman, with all its files in one directory. Its service may run or not.
pub struct Podman {
    dir: TempDir,
    service: Option<Child>,
}

impl Podman {
    /// The service does not run yet.
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        for name in ["rootfs", "tmp"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let config = "[engine]\nlock_type = \"file\"\nevents_logger = \"file\"\n";
        fs::write(dir.path().join("containers.conf"), config).unwrap();
        Self { dir, service: None }
    }

    /// Where the service listens.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("podman.sock")
    }

    /// The setting by which an agent asks this one and nobody else.
    pub fn setting(&self) -> String {
        format!(
            "[containers]\nsockets = [\"{}\"]\n",
            self.socket().display()
        )
    }

    /// Starts the service, and waits until it listens.
    pub fn start(&mut self) {
        let address = format!("unix://{}", self.socket().display());
        let mut command = self.command(&["system", "service", "--time", "0", &address]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.service = Some(child.unwrap());
        let listens = || UnixStream::connect(self.socket()).is_ok();
        wait_for("podman to listen", SOON, listens).unwrap();
    }

    /// Kills the service; its socket is gone too.
    pub fn stop(&mut self) {
        if let Some(mut service) = self.service.take() {
            service.kill().unwrap();
            service.wait().unwrap();
            fs::remove_file(self.socket()).unwrap();
        }
    }

    /// Makes a container and returns its id.
    pub fn create(&self, name: &str, labels: &[&str]) -> String {
        let rootfs = self.dir.path().join("rootfs").display().to_string();
        let labels = labels.iter().flat_map(|label| ["--label", label]);
        let mut args = vec!["create", "--name", name, "--network", "none"];
        args.extend(labels);
        args.extend(["--rootfs", &rootfs, "/bin/true"]);
        self.run(&args)
    }

    /// Runs a command to its end, and returns what it printed.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "podman {args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        let program = testbed::process::find("podman")
            .expect("podman is not installed: scripts/setup.sh test says how");
        let dir = |name: &str| self.dir.path().join(name);
        let mut command = Command::new(program);
        command
            .env("CONTAINERS_CONF", dir("containers.conf"))
            .arg("--root")
            .arg(dir("root"))
            .arg("--runroot")
            .arg(dir("runroot"))
            .arg("--tmpdir")
            .arg(dir("tmp"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(args);
        command
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A cgroup that is named like that of a container of Podman's.
pub fn cgroup_of(above: &Cgroup, id: &str) -> Cgroup {
    above.child(&format!("libpod-{id}.scope")).unwrap()
}
