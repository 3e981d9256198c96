//! Nothing stays behind: after drop, after a panic, after kill -9, after a deadline.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::process::{self, Command, Stdio};
use std::time::{Duration, Instant};

use testbed::isolate::{self, TEST_CGROUP};
use testbed::process::is_alive;
use testbed::{Cgroup, NetNs, Node, Result, cgroup, cgroup2_mount, kernel_test, link, wait_for};

const SOON: Duration = Duration::from_secs(10);

/// The network namespaces that any thread of any process is in.
fn namespaces_in_use() -> HashSet<u64> {
    let tasks = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read_dir(entry.path().join("task")).ok());
    let files = tasks
        .flatten()
        .flatten()
        .map(|task| task.path().join("ns/net"));
    files
        .filter_map(|file| fs::metadata(file).ok())
        .map(|meta| meta.ino())
        .collect()
}

/// The network namespaces that this process holds by a descriptor.
fn namespaces_held() -> HashSet<u64> {
    let files = fs::read_dir("/proc/self/fd")
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let is_ns = |file: &std::path::PathBuf| {
        fs::read_link(file).is_ok_and(|to| to.to_string_lossy().starts_with("net:"))
    };
    files
        .filter(is_ns)
        .filter_map(|file| fs::metadata(file).ok())
        .map(|meta| meta.ino())
        .collect()
}

kernel_test! {
    fn test_runs_in_its_cgroup(cgroup: &Cgroup) -> Result<()> {
        assert_eq!(cgroup::current()?, cgroup.path());
        assert!(cgroup.members()?.contains(&process::id()));
        Ok(())
    }

    fn cgroups_go_with_their_members_moved_back(home: &Cgroup) -> Result<()> {
        let outer = Cgroup::create(TEST_CGROUP)?;
        let inner = outer.child("inner")?;
        let child = NetNs::current()?.command("sleep").arg("60").spawn()?;
        inner.add(child.pid())?;
        outer.enter()?;
        let paths = [inner.path().to_owned(), outer.path().to_owned()];
        // The outer one first: it takes the inner one with it.
        drop(outer);
        drop(inner);
        assert!(paths.iter().all(|path| !path.exists()));
        assert_eq!(cgroup::current()?, home.path());
        assert!(home.members()?.contains(&child.pid()));
        Ok(())
    }

    fn cgroup_of_a_dead_process_is_swept() -> Result<()> {
        // A pid beyond the largest that Linux gives (PID_MAX_LIMIT, 4 Mi).
        let dead = cgroup2_mount()?.join("beeline-sweep-5000000-0");
        let alive = cgroup2_mount()?.join(format!("beeline-sweep-{}-77", process::id()));
        fs::create_dir_all(&dead).unwrap();
        fs::create_dir_all(&alive).unwrap();
        let new = Cgroup::create("beeline-sweep")?;
        assert!(!dead.exists() && alive.exists() && new.path().exists());
        fs::remove_dir(alive).unwrap();
        Ok(())
    }

    fn namespaces_go_on_drop() -> Result<()> {
        let node = Node::new()?;
        let pod = node.pod("pod")?;
        let made = HashSet::from([node.inode()?, pod.inode()?]);
        assert!(made.is_subset(&namespaces_held()));
        drop((pod, node));
        assert!(made.is_disjoint(&namespaces_held()));
        wait_for("the end of the namespaces", SOON, || made.is_disjoint(&namespaces_in_use()))
    }

    fn pod_goes_from_the_bridge_on_drop() -> Result<()> {
        let node = Node::new()?;
        let pod = node.pod("pod")?;
        let port = pod.port().to_owned();
        assert!(link::names(&node)?.contains(&port));
        drop(pod);
        assert!(!link::names(&node)?.contains(&port));
        // Its address is free again.
        node.pod_with_addr("again", "10.244.0.2".parse().unwrap())?;
        Ok(())
    }

    fn panic_in_a_namespace_is_passed_on() -> Result<()> {
        let ns = NetNs::new("panics")?;
        let panic = std::panic::catch_unwind(|| ns.run(|| panic!("in run")).map(drop));
        assert!(panic.is_err());
        let thread = ns.spawn(|| panic!("in spawn"))?;
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| thread.join().map(drop)));
        assert!(panic.is_err());
        Ok(())
    }

    fn sysctls_belong_to_the_namespace() -> Result<()> {
        let (a, b) = (NetNs::new("a")?, NetNs::new("b")?);
        a.sysctl("net.ipv4.ip_forward", 1)?;
        b.sysctl("net.ipv4.ip_forward", 0)?;
        assert_eq!(a.sysctl_value("net.ipv4.ip_forward")?, "1");
        assert_eq!(b.sysctl_value("net/ipv4/ip_forward")?, "0");
        Ok(())
    }

    fn programs_run_in_the_namespace_and_end_with_their_guard() -> Result<()> {
        let ns = NetNs::new("programs")?;
        let links = ns.command("ip").args(["-o", "link"]).run()?;
        assert!(links.contains("lo:") && links.lines().count() == 1, "{links}");
        assert!(ns.command("no-such-program").run().is_err());
        let failed = ns.nft("add rule ip nowhere nothing accept").unwrap_err().to_string();
        assert!(failed.starts_with("nft in namespace programs ended with exit status: 1"), "{failed}");
        let child = ns.command("sleep").arg("60").spawn()?;
        let pid = child.pid();
        assert!(is_alive(pid));
        drop(child);
        assert!(!is_alive(pid));
        Ok(())
    }
}

/// Set for the process that is to be killed.
const VICTIM: &str = "BEELINE_VICTIM";

/// The part that is killed by the test below: makes all it can and waits.
#[test]
#[ignore = "part of killed_process_leaves_nothing"]
fn victim() {
    if std::env::var_os(VICTIM).is_none() {
        return;
    }
    let node = Node::new().unwrap();
    let pod = node.pod("pod").unwrap();
    let child = pod.command("sleep").arg("600").spawn().unwrap();
    let cgroup = Cgroup::create("beeline-victim").unwrap();
    println!(
        "victim made {} {} {} {}",
        pod.inode().unwrap(),
        node.inode().unwrap(),
        child.pid(),
        cgroup.path().display()
    );
    std::thread::sleep(Duration::from_secs(600));
}

kernel_test! {
    fn killed_process_leaves_nothing() -> Result<()> {
        let here = NetNs::current()?;
        let links = link::names(&here)?;
        let binary = std::env::current_exe().unwrap();
        let mut victim = here
            .command(binary.to_str().unwrap())
            .args(["--exact", "victim", "--ignored", "--nocapture"])
            .with(|command| {
                command.env(VICTIM, "1").stdout(Stdio::piped());
            })
            .spawn()?;
        let output = BufReader::new(victim.child().stdout.take().unwrap());
        let line = output.lines().map_while(|line| line.ok()).find(|line| line.contains("victim made"));
        let line = line.expect("the victim tells what it made");
        // Dropping the guard sends SIGKILL to the victim alone.
        drop(victim);
        let made: Vec<_> = line.split_once("victim made ").unwrap().1.split(' ').collect();
        let spaces: HashSet<u64> = made[..2].iter().map(|inode| inode.parse().unwrap()).collect();
        wait_for("the end of the program", SOON, || !is_alive(made[2].parse().unwrap()))?;
        wait_for("the end of the namespaces", SOON, || spaces.is_disjoint(&namespaces_in_use()))?;
        assert_eq!(link::names(&here)?, links);
        // The cgroup stays, empty, until the next one is made.
        assert!(fs::exists(made[3]).unwrap());
        let _next = Cgroup::create("beeline-victim")?;
        assert!(!fs::exists(made[3]).unwrap());
        Ok(())
    }

    fn deadline_kills_a_hanging_program_and_its_children() -> Result<()> {
        let start = Instant::now();
        let mut command = Command::new("sh");
        command.args(["-c", "echo started; sleep 600 & echo $!; wait"]);
        let ended = isolate::run(&mut command, Duration::from_millis(300))?;
        assert!(ended.status.is_none());
        assert!(start.elapsed() < SOON);
        let pid = ended.output.lines().nth(1).expect("the child's pid").parse().unwrap();
        assert!(ended.output.starts_with("started\n"));
        wait_for("the end of the child", SOON, || !is_alive(pid))
    }

    fn failure_is_told_with_its_output() -> Result<()> {
        let mut command = Command::new("sh");
        command.args(["-c", "echo out; echo err >&2; exit 3"]);
        let ended = isolate::run(&mut command, SOON)?;
        assert_eq!(ended.status.and_then(|status| status.code()), Some(3));
        assert_eq!(ended.output, "out\nerr\n");
        Ok(())
    }
}
