//! Programs that people run, between pods: they succeed, and their data is redirected.

mod common;

use std::fs;

use common::{Bed, LARGE, Result, SOON, Sums, expect_reasons};
use datapath::abi::{Reason, Totals};
use datapath::socket::Options;
use testbed::process::NsCommand;
use testbed::traffic::pattern::Pattern;
use testbed::{Cgroup, ChildGuard, NetNs, Node, Pod, kernel_test, wait_for};

/// The Debian packages of the programs.
const PACKAGES: [(&str, &str); 6] = [
    ("iperf3", "iperf3"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("nginx", "nginx-light"),
    ("wrk", "wrk"),
    ("curl", "curl"),
];

fn package(error: testbed::Error) -> String {
    if let testbed::Error::NoProgram { program } = &error {
        let found = PACKAGES.iter().find(|(name, _)| name == program);
        if let Some((_, package)) = found {
            return format!("{error}: apt-get install {package}");
        }
    }
    error.to_string()
}

fn program(ns: &NetNs, name: &str, args: &[&str]) -> NsCommand {
    ns.command(name).args(args)
}

/// Runs a program to its end and returns its standard output.
fn run(ns: &NetNs, name: &str, args: &[&str]) -> Result<String> {
    Ok(program(ns, name, args).run().map_err(package)?)
}

/// Starts a server and waits until somebody listens on the port.
fn serve(ns: &NetNs, name: &str, args: &[&str], port: u16) -> Result<ChildGuard> {
    let quiet = program(ns, name, args).with(|command| {
        command.stdout(std::process::Stdio::null());
    });
    let server = quiet.spawn().map_err(package)?;
    let listens = || listens(ns, port).unwrap_or(false);
    wait_for(&format!("{name} on port {port}"), SOON, listens)?;
    Ok(server)
}

/// Looked up, as a connection of our own would be counted.
fn listens(ns: &NetNs, port: u16) -> Result<bool> {
    let (local, listen) = (format!(":{port:04X} "), " 0A ");
    let text = ns.run(|| {
        let of = |name| fs::read_to_string(format!("/proc/thread-self/net/{name}"));
        Ok::<_, std::io::Error>(of("tcp")? + &of("tcp6")?)
    })??;
    Ok(text
        .lines()
        .any(|line| line.contains(&local) && line.contains(listen)))
}

fn pods() -> Result<(Node, Pod, Pod)> {
    let node = Node::new()?;
    let (web, client) = (node.pod("web")?, node.pod("client")?);
    Ok((node, web, client))
}

/// Everything was enrolled, and all but the directions that began too early was redirected.
fn redirected(bed: &Bed, connections: u64, bytes: u64) -> Result<Totals> {
    let totals = bed.emptied()?;
    let late = totals.count(Reason::PeerLate);
    expect_reasons(&totals, &[(Reason::PeerLate, late)]);
    assert_eq!(totals.enrolled, 2 * totals.paired);
    assert!(totals.paired >= connections, "{}", Sums(&totals));
    assert!(totals.closed_redirected_bytes >= bytes, "{}", Sums(&totals));
    if late == 0 {
        assert_eq!(totals.closed_kernel_bytes, 0, "{}", Sums(&totals));
    }
    Ok(totals)
}

/// Runs iperf3 with these arguments; returns the sums, and how many bytes it received.
fn iperf3(bed: &Bed, args: &[&str]) -> Result<(Totals, u64)> {
    let (_node, web, client) = pods()?;
    let server = serve(&web, "iperf3", &["-s", "-1"], 5201)?;
    let to = web.ip().to_string();
    let args = [&["-J", "-c", &to], args].concat();
    let report: serde_json::Value = serde_json::from_str(&run(&client, "iperf3", &args)?)?;
    drop(server);
    let mut received = 0;
    for sum in ["sum_received", "sum_received_bidir_reverse"] {
        received += report["end"][sum]["bytes"].as_u64().unwrap_or(0);
    }
    assert!(received > 0, "{report:#}");
    Ok((bed.emptied()?, received))
}

/// All of iperf3's connections are enrolled, and nothing of what it sent went through the stack.
fn iperf3_redirected(cgroup: &Cgroup, args: &[&str], connections: u64) -> Result {
    let (totals, received) = iperf3(&Bed::on(cgroup)?, args)?;
    let late = totals.count(Reason::PeerLate);
    expect_reasons(&totals, &[(Reason::PeerLate, late)]);
    assert_eq!(totals.paired, connections, "{}", Sums(&totals));
    assert!(
        totals.closed_redirected_bytes >= received,
        "{}",
        Sums(&totals)
    );
    // The control connection and the streams' cookies may be early; the streams are not.
    assert!(
        totals.closed_kernel_bytes < 10_000 * (late + 1),
        "{}",
        Sums(&totals)
    );
    Ok(())
}

/// A directory that nginx, as an unprivileged user, may read.
fn site(files: &[(&str, u64)]) -> Result<tempfile::TempDir> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::Builder::new().prefix("beeline-nginx").tempdir()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
    for (name, len) in files {
        let mut bytes = vec![0; usize::try_from(*len)?];
        Pattern::new(*len).fill(&mut bytes);
        fs::write(dir.path().join(name), bytes)?;
    }
    let text = format!(
        "worker_processes 2; pid {dir}/pid; error_log stderr warn; daemon off;
        events {{ worker_connections 512; }}
        http {{
            access_log off; sendfile off; keepalive_requests 100000;
            client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
            uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
            server {{ listen 8080; listen [::]:8080; root {dir};
                location = /sendfile {{ sendfile on; alias {dir}/large; }} }}
        }}\n",
        dir = dir.path().display()
    );
    fs::write(dir.path().join("nginx.conf"), text)?;
    Ok(dir)
}

fn nginx(ns: &NetNs, site: &tempfile::TempDir) -> Result<ChildGuard> {
    let (dir, conf) = (site.path(), site.path().join("nginx.conf"));
    let args = [
        "-p",
        &dir.display().to_string(),
        "-c",
        &conf.display().to_string(),
    ];
    serve(ns, "nginx", &args, 8080)
}

kernel_test! {
    fn iperf3_one_way_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-n", "20M", "-b", "400M"], 2)
    }

    fn iperf3_reverse_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-R", "-n", "20M", "-b", "400M"], 2)
    }

    fn iperf3_both_ways_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["--bidir", "-n", "20M", "-b", "400M"], 3)
    }

    fn iperf3_with_four_streams_is_redirected(cgroup: &Cgroup) -> Result {
        iperf3_redirected(cgroup, &["-P", "4", "-n", "20M", "-b", "100M"], 5)
    }

    /// As fast as it can, for a second: the reader may fall behind, nothing else may happen.
    fn iperf3_without_limit_works(cgroup: &Cgroup) -> Result {
        let (totals, received) = iperf3(&Bed::with(cgroup, Options::default())?, &["-t", "1"])?;
        let of = |reason| (reason, totals.count(reason));
        expect_reasons(&totals, &[of(Reason::PeerLate), of(Reason::QueueFull)]);
        assert_eq!(totals.paired, 2);
        assert!(totals.closed_redirected_bytes + totals.closed_kernel_bytes >= received);
        assert!(totals.closed_redirected_bytes > 0);
        Ok(())
    }

    /// The same thread sends and receives on both sides, so both queues grow as far as they may.
    fn iperf3_both_ways_without_limit_works(cgroup: &Cgroup) -> Result {
        let (totals, received) = iperf3(&Bed::with(cgroup, Options::default())?, &["-t", "1", "--bidir"])?;
        assert_eq!(totals.paired, 3);
        assert!(totals.closed_redirected_bytes + totals.closed_kernel_bytes >= received);
        Ok(())
    }

    fn redis_benchmark_is_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (_node, web, client) = pods()?;
        let args = ["--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--appendonly", "no"];
        let server = serve(&web, "redis-server", &args, 6379)?;
        let to = web.ip().to_string();
        let args = ["-h", &to, "-n", "20000", "-c", "50", "-d", "100", "-t", "set,get,lrange_100", "--csv"];
        let report = run(&client, "redis-benchmark", &args)?;
        assert!(report.contains("\"SET\"") && report.contains("\"GET\""), "{report}");
        drop(server);
        // Keys go there, values come back.
        redirected(&bed, 150, 20_000 * 2 * 100)?;
        Ok(())
    }

    fn nginx_and_wrk_are_redirected(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (_node, web, client) = pods()?;
        let site = site(&[("small", 1000)])?;
        let server = nginx(&web, &site)?;
        let url = format!("http://{}:8080/small", web.ip());
        let report = run(&client, "wrk", &["-t", "1", "-c", "20", "-d", "1", &url])?;
        let failed = ["Non-2xx", "Socket errors"].iter().any(|word| report.contains(word));
        assert!(report.contains("requests in") && !failed, "{report}");
        drop(server);
        redirected(&bed, 20, 1000 * 1000)?;
        Ok(())
    }

    fn nginx_and_curl_carry_a_large_file(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (_node, web, client) = pods()?;
        let site = site(&[("large", 2 * LARGE)])?;
        let sent = fs::read(site.path().join("large"))?;
        let server = nginx(&web, &site)?;
        let mut got = Vec::new();
        for host in [web.ip().to_string(), format!("[{}]", web.ip6())] {
            for name in ["large", "sendfile"] {
                let (url, out) = (format!("http://{host}:8080/{name}"), site.path().join("got"));
                run(&client, "curl", &["-sSf", "-g", "-o", &out.display().to_string(), &url])?;
                got.push(fs::read(&out)? == sent);
            }
        }
        assert_eq!(got, [true; 4], "IPv4 and IPv6, with write(2) and sendfile(2)");
        drop(server);
        redirected(&bed, 4, 4 * 2 * LARGE)?;
        Ok(())
    }

    fn curl_keeps_a_connection_for_many_requests(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let (_node, web, client) = pods()?;
        let site = site(&[("small", 100)])?;
        let server = nginx(&web, &site)?;
        let url = format!("http://{}:8080/small?[1-500]", web.ip());
        run(&client, "curl", &["-sSf", &url])?;
        drop(server);
        let totals = redirected(&bed, 1, 500 * 100)?;
        assert_eq!(totals.paired, 1);
        Ok(())
    }

    fn missing_program_is_named_with_its_package() -> Result {
        let error = testbed::Error::NoProgram { program: "redis-benchmark".into() };
        assert!(package(error).ends_with("apt-get install redis-tools"));
        Ok(())
    }
}
