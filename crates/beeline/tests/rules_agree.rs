//! Random rules and random connections: what the tables say, which is what `beeline explain` tells, is
//! what happens in the kernel.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::PathBuf;

use beeline::config::Sources;
use beeline::policy::Policy;
use beeline::workload::source::News;
use beeline::workload::{Container, Containers};
use datapath::abi::{Program, Reason};
use datapath::ends::Ends;
use datapath::programs::Programs;
use datapath::rules::{Known, Tables, prepare};
use datapath::socket::{Options, SocketPath};
use proptest::collection::vec;
use proptest::option;
use proptest::sample::select;
use proptest::strategy::{Just, Strategy};
use proptest::test_runner::{Config, TestRunner};
use proptest::{prop_assert_eq, prop_oneof};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use tempfile::NamedTempFile;
use testbed::traffic::{self, SocketOptions};
use testbed::{Cgroup, kernel_test};

/// Sets of rules that are tried, and connections with each of them.
const CASES: u32 = 60;
const CONNECTIONS: usize = 12;

/// Owners of listening and of connecting sockets.
const USERS: [u32; 3] = [0, 1000, 1 << 31];

/// A listening socket, and what it was made with.
struct Listener {
    socket: TcpListener,
    addr: SocketAddr,
    cgroup: usize,
    uid: u32,
}

/// One connection: which cgroup, user and address connect to which listener.
#[derive(Debug, Clone)]
struct Call {
    cgroup: usize,
    uid: u32,
    from: Ipv4Addr,
    mapped: bool,
    to: usize,
}

/// What the kubelet labels containers with.
const NAMESPACE: &str = "io.kubernetes.pod.namespace";
const POD: &str = "io.kubernetes.pod.name";

struct Bed {
    path: SocketPath,
    top: PathBuf,
    cgroups: Vec<(Cgroup, u64, String)>,
    containers: Containers,
    listeners: Vec<Listener>,
    programs: Vec<(Program, PathBuf)>,
}

impl Bed {
    fn new(cgroup: &Cgroup) -> Self {
        let mut path = SocketPath::load(Options::default()).unwrap();
        path.attach(cgroup.path()).unwrap();
        let [known, unknown] =
            ["0123456789abcdef", "f00d"].map(|digits| digits.repeat(64 / digits.len()));
        let labels = [("app", "shop"), (NAMESPACE, "bank"), (POD, "web-0")];
        let container = Container {
            name: "web".into(),
            labels: labels.map(|(key, value)| (key.into(), value.into())).into(),
        };
        let mut containers = Containers::default();
        containers.learn(0, News::Is(known.clone(), container));
        let scopes = [known, unknown].map(|id| format!("docker-{id}.scope"));
        let names = ["plain", "db-1", "web.service", &scopes[0], &scopes[1]];
        let mount = testbed::cgroup2_mount().unwrap();
        let cgroups: Vec<_> = names
            .iter()
            .map(|name| {
                let child = cgroup.child(name).unwrap();
                let id = child.path().metadata().unwrap().ino();
                let below = child.path().strip_prefix(&mount).unwrap();
                let path = format!("/{}", below.display());
                (child, id, path)
            })
            .collect();
        let listeners = (0..8).map(|n| listener(&cgroups, n)).collect();
        let programs = Programs::load(path.maps(), |_| false)
            .unwrap()
            .running()
            .unwrap();
        let own = std::env::current_exe().unwrap();
        let programs = programs
            .into_iter()
            .filter(|(_, path)| *path == own)
            .collect();
        let top = PathBuf::from("/").join(cgroup.path().strip_prefix(&mount).unwrap());
        Self {
            path,
            top,
            cgroups,
            containers,
            listeners,
            programs,
        }
    }

    fn tables(&self, rules: &str) -> Tables {
        let file = NamedTempFile::new().unwrap();
        fs::write(&file, rules).unwrap();
        let config = Sources::of(file.path())
            .load()
            .unwrap_or_else(|error| panic!("{error}"));
        let cgroups = self.cgroups.iter().map(|(_, id, path)| (*id, path.clone()));
        let cgroups: HashMap<u64, String> = cgroups.collect();
        Policy::of(&config).tables(&cgroups, &self.containers, &self.programs)
    }

    /// Makes a connection. Returns what is known of its ends, and why it is not enrolled, or how much may
    /// wait at its readers.
    fn call(&self, call: &Call) -> (Known, Known, Result<u32, Reason>) {
        let to = &self.listeners[call.to];
        let before = self.path.maps().totals().unwrap();
        self.cgroups[call.cgroup].0.enter().unwrap();
        let client = call_from(call, to.addr).unwrap();
        let server = traffic::accept(&to.socket).unwrap();
        let after = self.path.maps().totals().unwrap();
        let counted = |reason: &&Reason| after.count(**reason) > before.count(**reason);
        let reason = Reason::ALL.iter().find(counted).copied();
        let outcome = reason.map_or_else(|| Ok(self.queue_limit(&client)), Err);
        assert_eq!(
            after.enrolled - before.enrolled,
            if reason.is_none() { 2 } else { 0 }
        );
        let known = |socket: &TcpStream, cgroup: usize, uid| {
            let (local, remote) = (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
            Known {
                program: Some(self.programs[0].0),
                cgroup: Some(self.cgroups[cgroup].1),
                uid: Some(uid),
                local_ip: Some(local.ip().to_canonical()),
                remote_ip: Some(remote.ip().to_canonical()),
                local_port: Some(local.port()),
                remote_port: Some(remote.port()),
            }
        };
        let ends = (
            known(&client, call.cgroup, call.uid),
            known(&server, to.cgroup, to.uid),
        );
        (ends.0, ends.1, outcome)
    }

    /// Of a client's end.
    fn queue_limit(&self, client: &TcpStream) -> u32 {
        let ends = Ends::load(self.path.maps())
            .unwrap()
            .list(self.path.maps())
            .unwrap();
        let (local, remote) = (client.local_addr().unwrap(), client.peer_addr().unwrap());
        let mut own = ends.iter().filter(|end| {
            let ports = (end.endpoints.local_port, end.endpoints.remote_port);
            end.end.is_client() && ports == (local.port(), remote.port())
        });
        own.next().expect("it is enrolled").end.queue_limit
    }
}

/// Of the third and seventh the addresses are IPv6, of the fourth and eighth both.
fn listener(cgroups: &[(Cgroup, u64, String)], n: usize) -> Listener {
    let cgroup = n % cgroups.len();
    cgroups[cgroup].0.enter().unwrap();
    let ip: IpAddr = match n % 4 {
        2 => Ipv6Addr::LOCALHOST.into(),
        3 => Ipv6Addr::UNSPECIFIED.into(),
        n => Ipv4Addr::new(127, 0, 0, 1 + n as u8).into(),
    };
    let mut options = SocketOptions::new();
    if ip.is_ipv6() {
        options = options.only_v6(n % 4 == 2);
    }
    let (socket, mut addr) = options.listen((ip, 0)).unwrap();
    if ip.is_unspecified() {
        addr.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    let uid = USERS[n % USERS.len()];
    fchown(&socket, Some(uid), None).unwrap();
    Listener {
        socket,
        addr,
        cgroup,
        uid,
    }
}

/// The owner has to be set before the handshake.
fn call_from(call: &Call, to: SocketAddr) -> io::Result<TcpStream> {
    let mapped = |ip: IpAddr| match ip {
        IpAddr::V4(ip) if call.mapped => ip.to_ipv6_mapped().into(),
        ip => ip,
    };
    let to = SocketAddr::new(mapped(to.ip()), to.port());
    let family = if to.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    fchown(&socket, Some(call.uid), None)?;
    if to.ip().to_canonical().is_ipv4() {
        bind(&socket, &SocketAddr::new(mapped(call.from.into()), 0))?;
    }
    match connect(&socket, &to) {
        Err(error) if error != Errno::INPROGRESS => Err(error.into()),
        _ => Ok(socket.into()),
    }
}

/// One value that a rule may ask for, in TOML; some match, and some never do.
fn field(bed: &Bed) -> impl Strategy<Value = String> + use<> {
    let top = bed.top.display().to_string();
    let own = bed.programs[0].1.display().to_string();
    let ports: Vec<u16> = bed.listeners.iter().map(|one| one.addr.port()).collect();
    let cgroups = ["", "/*", "/db-*", "/web.service", "/d*", "/no"];
    let cgroups = cgroups
        .map(|below| format!("cgroup = \"{top}{below}\""))
        .to_vec();
    prop_oneof![
        select(cgroups),
        select(vec!["web.service", "*.scope", "*.service", "no.service"])
            .prop_map(|unit| format!("unit = \"{unit}\"")),
        select(vec!["*", "0123456789ab", "f00d*", "web", "d*"])
            .prop_map(|name| format!("container = \"{name}\"")),
        select(vec!["shop", "s*", "x"])
            .prop_map(|value| format!("labels = {{ app = \"{value}\" }}")),
        select(vec![
            "namespace = \"bank\"",
            "name = \"web-*\"",
            "name = \"x\""
        ])
        .prop_map(|pod| format!("pod = {{ {pod} }}")),
        select(vec![own, "/usr/bin/*".to_owned()])
            .prop_map(|path| format!("executable = \"{path}\"")),
        vec(select(USERS.to_vec()), 1..3).prop_map(|users| format!("uid = {users:?}")),
        vec(
            select(vec![
                "127.0.0.0/8",
                "127.0.0.2",
                "127.0.0.0/30",
                "::1",
                "::/0",
                "0.0.0.0/0",
                "10.0.0.0/8"
            ]),
            1..3
        )
        .prop_map(|networks| format!("cidr = {networks:?}")),
        vec(select(ports), 1..4).prop_map(|ports| format!("port = {ports:?}")),
        (1u16..60000, 0u16..5000)
            .prop_map(|(from, more)| format!("port = \"{from}-{}\"", from + more)),
        Just("port = \"32768-65535\"".to_owned()),
    ]
}

/// Each field at most once.
fn ask(bed: &Bed) -> impl Strategy<Value = String> + use<> {
    vec(field(bed), 0..3).prop_map(|mut fields| {
        let name = |field: &String| field.split(' ').next().map(str::to_owned);
        fields.sort();
        fields.dedup_by_key(|field| name(field));
        fields.join(", ")
    })
}

fn rules(bed: &Bed) -> impl Strategy<Value = String> + use<> {
    let path = || select(vec!["kernel", "socket", "auto"]);
    let limit = option::of(1u32..1 << 20);
    let rule = (path(), limit, ask(bed), ask(bed)).prop_map(|(path, limit, local, remote)| {
        let limit = limit.filter(|_| path != "kernel");
        let limit = limit
            .map(|bytes| format!("queue_limit = {bytes}\n"))
            .unwrap_or_default();
        format!(
            "[[rule]]\npath = \"{path}\"\n{limit}local = {{ {local} }}\nremote = {{ {remote} }}\n"
        )
    });
    // Some lie in the second word of a set.
    let front = select(vec![0, 63, 70]);
    (front, vec(rule, 0..8), option::of(path())).prop_map(|(front, rules, otherwise)| {
        let idle = "[[rule]]\npath = \"kernel\"\nlocal = { uid = 77 }\n".repeat(front);
        let otherwise = otherwise.map(|path| format!("[defaults]\npath = \"{path}\"\n"));
        idle + &rules.concat() + &otherwise.unwrap_or_default()
    })
}

fn call(bed: &Bed) -> impl Strategy<Value = Call> + use<> {
    let from = (1u8..5).prop_map(|n| Ipv4Addr::new(127, 0, 0, n));
    let who = (0..bed.cgroups.len(), select(USERS.to_vec()), from);
    (who, proptest::bool::ANY, 0..bed.listeners.len()).prop_map(
        |((cgroup, uid, from), mapped, to)| Call {
            cgroup,
            uid,
            from,
            mapped,
            to,
        },
    )
}

kernel_test! {
    #[deadline(300)]
    fn what_the_tables_say_is_what_happens(cgroup: &Cgroup) {
        let bed = Bed::new(cgroup);
        let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
        let cases = (rules(&bed), vec(call(&bed), CONNECTIONS));
        let (mut limited, mut outcomes): (u32, HashMap<Option<Reason>, u32>) = Default::default();
        let counted = std::cell::RefCell::new((&mut limited, &mut outcomes));
        let tried = TestRunner::new(config).run(&cases, |(rules, calls)| {
            let tables = bed.tables(&rules);
            prepare(bed.path.maps(), &tables).unwrap().put_in_force(bed.path.maps(), |_| {}).unwrap();
            for call in &calls {
                let (client, server, outcome) = bed.call(call);
                let ruling = tables.rule(&client, &server);
                let said = ruling.reason.map_or_else(|| Ok(tables.options(&ruling).queue_limit), Err);
                prop_assert_eq!(said, outcome, "{:?} of {:?} and {:?}", call, client, server);
                let (limited, outcomes) = &mut *counted.borrow_mut();
                **limited += u32::from(outcome.is_ok_and(|limit| limit > 0));
                *outcomes.entry(outcome.err()).or_default() += 1;
            }
            Ok(())
        });
        tried.unwrap_or_else(|error| panic!("{error}"));
        // All outcomes occurred often enough to mean something.
        let all = [None, Some(Reason::Excluded), Some(Reason::UnknownWorkload)];
        let [passed, excluded, unknown] = all.map(|one| outcomes[&one]);
        assert!(passed > 50 && excluded > 50 && unknown > 5, "{outcomes:?}");
        assert!(limited > 20, "{limited} {outcomes:?}");
        assert_eq!(outcomes.len(), 3, "{outcomes:?}");
    }
}
