//! A machine to install packages on: this host's files under a layer that is thrown away, with its own /run and bpffs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::{output_of, text};

const SET_UP: &str = r#"
set -e
mount -t tmpfs none "$1"
cd "$1"
mkdir upper work root
mount -t overlay none -o lowerdir=/,upperdir="$1/upper",workdir="$1/work" root
cd root
for dir in proc sys dev; do mount --rbind /$dir $dir; done
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs none run
mount --bind "$2" mnt
echo ready
exec cat
"#;

/// Its mounts go with the process that holds their namespace.
pub struct Machine {
    holder: Child,
    dir: TempDir,
}

impl Machine {
    /// `packages` is to be found in /mnt.
    pub fn new(packages: &Path) -> Self {
        let dir = TempDir::new().expect("the temporary directory is writable");
        let mut holder = Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                SET_UP,
                "sh",
            ])
            .args([dir.path(), packages])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare (util-linux) starts");
        let mut said = String::new();
        let stdout = holder.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the mounts");
        Self { holder, dir }
    }

    /// A program on it, not started.
    pub fn command(&self, program: &[&str]) -> Command {
        let namespace = format!("--mount=/proc/{}/ns/mnt", self.holder.id());
        let mut command = Command::new("nsenter");
        command.args([&namespace, "chroot"]);
        command.arg(self.dir.path().join("root")).args(program);
        command
    }

    /// Runs a program that has to succeed, and returns what it said.
    pub fn ok(&self, program: &[&str]) -> String {
        let output = output_of(&mut self.command(program));
        assert!(output.status.success(), "{program:?}: {}", text(&output));
        text(&output)
    }

    /// Runs a program that has to fail, and returns what it said.
    pub fn fails(&self, program: &[&str]) -> String {
        let output = output_of(&mut self.command(program));
        assert!(!output.status.success(), "{program:?}: {}", text(&output));
        text(&output)
    }

    pub fn has(&self, path: &str) -> bool {
        self.command(&["test", "-e", path])
            .status()
            .is_ok_and(|status| status.success())
    }

    pub fn write(&self, path: &str, content: &str) {
        self.ok(&["sh", "-c", "printf %s \"$2\" >\"$1\"", "sh", path, content]);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}
