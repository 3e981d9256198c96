//! OpenSSH: files each way with sftp and scp, a server that is not root.

use std::fs;
use std::os::unix::fs::chown;

use testbed::{Cgroup, kernel_test};

use crate::common::Result;
use crate::stage::{AS_NOBODY, Server, Stage, expect_redirected, on_both_paths};

const PORT: u16 = 2222;
const SIZE: u64 = 24 << 20;

/// Shows the program that follows another list of users than the host's.
const WITH_USERS: [&str; 5] = [
    "unshare",
    "-m",
    "sh",
    "-c",
    r#"mount --bind "$0" /etc/passwd && exec "$@""#,
];

/// Starts sshd as a user without rights, who may log in with the stage's key; distributions lock their own.
fn sshd(stage: &Stage) -> Result<Server> {
    let dir = stage.nobodys("ssh")?;
    for key in ["host", "user"] {
        let file = format!("{dir}/{key}");
        stage.run(
            &stage.client,
            &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &file],
        )?;
    }
    chown(format!("{dir}/host"), Some(65_534), Some(65_534))?;
    let conf = format!(
        "Port {PORT}\nHostKey {dir}/host\nPidFile none\nAuthorizedKeysFile {dir}/user.pub\nStrictModes no\n\
        UsePAM no\nPasswordAuthentication no\nSubsystem sftp internal-sftp\nLogLevel ERROR\n"
    );
    let conf = stage.write("sshd_config", conf)?;
    let users = stage.write("passwd", format!("bench:*:65534:65534::{dir}:/bin/sh\n"))?;
    // It starts itself again for each connection, which needs its whole path.
    let command = ["/usr/sbin/sshd", "-D", "-e", "-f", &conf];
    stage.serve(
        &stage.server,
        PORT,
        &[&WITH_USERS[..], &[&users], &AS_NOBODY, &command].concat(),
    )
}

/// Sends a file with sftp and another with scp, fetches both, and compares.
fn transfer(stage: &Stage) -> Result<usize> {
    let server = sshd(stage)?;
    let (sent, there) = (stage.fill("sent", SIZE)?, stage.nobodys("there")?);
    let (host, port, key) = (
        stage.server.ip().to_string(),
        PORT.to_string(),
        stage.arg("ssh/user"),
    );
    let options = [
        "-q",
        "-P",
        &port,
        "-i",
        &key,
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
    ];
    let copy = |from: &str, to: &str| {
        stage.run(
            &stage.client,
            &[&["scp"], &options[..], &[from, to]].concat(),
        )
    };
    let remote = |name: &str| format!("bench@{host}:{there}/{name}");
    copy(&stage.arg("sent"), &remote("one"))?;
    let batch = stage.write("batch", format!("put {} {there}/two\n", stage.arg("sent")))?;
    let to = format!("bench@{host}");
    stage.run(
        &stage.client,
        &[&["sftp", "-b", &batch], &options[..], &[&to]].concat(),
    )?;
    let mut right = 0;
    for name in ["one", "two"] {
        copy(&remote(name), &stage.arg("got"))?;
        let same = [stage.path(&format!("there/{name}")), stage.path("got")];
        for file in same {
            right += usize::from(fs::read(file)? == sent);
        }
    }
    assert_eq!(server.end()?, "");
    assert_eq!(right, 4, "files of {SIZE} bytes that are right");
    Ok(right)
}

kernel_test! {
    #[ignore = "make test-programs"]
    fn ssh_transfers_files_alike(cgroup: &Cgroup) -> Result {
        expect_redirected(&on_both_paths(cgroup, transfer)?, 2 * SIZE);
        Ok(())
    }
}
