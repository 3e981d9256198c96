//! Daemons that hang, answer nonsense or go away: nobody waits for them, and nothing that was known is
//! lost.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;

use beeline::workload::docker::Docker;
use beeline::workload::source::{News, Source};
use common::SOON;
use common::bed::{Bed, excluded, kernel};
use tempfile::TempDir;
use testbed::{Cgroup, kernel_test, wait_for};

/// What a daemon does with a connection, and what was asked on it.
type Behaviour = fn(UnixStream, &str);

/// Somebody who listens where Docker does.
struct Daemon {
    dir: TempDir,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<AtomicUsize>,
}

impl Daemon {
    fn new(behaviour: Behaviour) -> Self {
        let daemon = Self {
            dir: TempDir::new().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            asked: Arc::default(),
        };
        let listener = UnixListener::bind(daemon.socket()).unwrap();
        let (behaviour, asked) = (daemon.behaviour.clone(), daemon.asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let behaviour = *behaviour.lock().unwrap();
                let asked = asked.clone();
                thread::spawn(move || {
                    let mut line = String::new();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    reader.read_line(&mut line).unwrap_or_default();
                    asked.fetch_add(1, Ordering::Relaxed);
                    behaviour(stream, line.split(' ').nth(1).unwrap_or_default());
                });
            }
        });
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("docker.sock")
    }

    fn becomes(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap() = behaviour;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// What a source hears of it.
    fn follow(&self) -> Receiver<News> {
        let (source, (to, news)) = (Docker::at(self.socket()), mpsc::channel());
        thread::spawn(move || source.follow(&|news| to.send(news).unwrap_or_default()));
        news
    }
}

/// Writes until nobody listens any more.
fn write(mut stream: &UnixStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

fn answer(stream: &UnixStream, body: &str) {
    let length = body.len();
    write(
        stream,
        &format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"),
    );
}

/// Of an answer without an end, which lasts as long as the stream.
fn begin(stream: &UnixStream, text: &str) {
    write(stream, &format!("HTTP/1.1 200 OK\r\n\r\n{text}"));
}

fn hangs(stream: UnixStream, _: &str) {
    std::mem::forget(stream);
}

/// One container, whose name is `web`.
fn is_well(stream: UnixStream, path: &str) {
    if path.starts_with("/events") {
        begin(&stream, "");
        return std::mem::forget(stream);
    }
    let id = id();
    answer(
        &stream,
        &format!("[{{\"Id\":\"{id}\",\"Names\":[\"/web\"],\"Labels\":null}}]"),
    );
}

fn id() -> String {
    "0123456789abcdef".repeat(4)
}

/// The next that is heard of is the one container.
fn is_believed(news: &Receiver<News>) {
    match news.recv_timeout(SOON).expect("it is heard of in time") {
        News::All(all) => assert_eq!(all[&id()].name, "web"),
        other => panic!("{other:?}"),
    }
}

/// So many questions are answered so, and nothing is made of it. Then all is well.
fn is_not_believed(questions: usize, behaviour: Behaviour) {
    let daemon = Daemon::new(behaviour);
    let news = daemon.follow();
    wait_for("another attempt", SOON, || daemon.asked() > questions).unwrap();
    assert!(news.try_recv().is_err());
    daemon.becomes(is_well);
    is_believed(&news);
}

#[test]
fn a_daemon_that_hangs_is_given_up_and_asked_again() {
    is_not_believed(1, hangs);
}

#[test]
fn what_is_no_http_is_no_answer() {
    is_not_believed(1, |stream, _| {
        write(&stream, "220 mail.example.org ESMTP\r\n")
    });
}

#[test]
fn an_error_is_no_answer() {
    is_not_believed(1, |stream, _| {
        write(&stream, "HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n[]")
    });
}

#[test]
fn what_is_no_list_is_none() {
    is_not_believed(2, |stream, path| match path.starts_with("/events") {
        true => is_well(stream, path),
        false => answer(&stream, "{\"message\":\"[]\"}"),
    });
}

#[test]
fn an_answer_without_an_end_is_not_read_to_its_end() {
    static READ: AtomicUsize = AtomicUsize::new(0);
    is_not_believed(2, |mut stream, path| {
        if path.starts_with("/events") {
            return is_well(stream, path);
        }
        begin(&stream, "[");
        let spaces = [b' '; 1 << 20];
        while stream.write_all(&spaces).is_ok() {
            READ.fetch_add(spaces.len(), Ordering::Relaxed);
        }
    });
    // By two attempts at most, of 64 MiB each and what the sockets hold.
    assert!(READ.load(Ordering::Relaxed) < 200 << 20);
}

/// The list is good, and so is looked at again and again.
fn is_heard_no_more(events: Behaviour) {
    let daemon = Daemon::new(events);
    let news = daemon.follow();
    is_believed(&news);
    is_believed(&news);
}

#[test]
fn an_event_without_an_end_ends_the_connection() {
    is_heard_no_more(|stream, path| match path.starts_with("/events") {
        true => {
            begin(&stream, &"{".repeat(2 << 20));
            std::mem::forget(stream);
        }
        false => is_well(stream, path),
    });
}

#[test]
fn an_event_that_is_none_ends_the_connection() {
    is_heard_no_more(|stream, path| match path.starts_with("/events") {
        true => {
            begin(&stream, "nothing happened\n");
            std::mem::forget(stream);
        }
        false => is_well(stream, path),
    });
}

#[test]
fn a_daemon_that_ends_is_asked_again() {
    is_heard_no_more(|stream, path| match path.starts_with("/events") {
        true => begin(&stream, ""),
        false => is_well(stream, path),
    });
}

kernel_test! {
    fn while_a_daemon_hangs_cgroups_and_ids_are_known(cgroup: &Cgroup) {
        let daemon = Daemon::new(hangs);
        let head = format!("[containers]\nsockets = [\"{}\"]\n", daemon.socket().display());
        let mut bed = Bed::with(cgroup, head, &kernel("container = [\"0123456789ab\", \"x\"]", "unit = \"web.service\""));
        assert_eq!(bed.why(), None);
        let web = cgroup.child("web.service").unwrap();
        web.enter().unwrap();
        bed.reload(&kernel("unit = \"web.service\"", "port = \"1-65535\""));
        wait_for("the agent to know it", SOON, || bed.why() == excluded()).unwrap();
        bed.reload(&kernel("container = [\"0123456789ab\", \"x\"]", ""));
        let container = cgroup.child(&format!("docker-{}.scope", id())).unwrap();
        container.enter().unwrap();
        wait_for("the agent to know it", SOON, || bed.why() == excluded()).unwrap();
        assert!(daemon.asked() > 0);
        let log = bed.agent.take().expect("it runs").log();
        assert!(log.contains("nobody tells them yet"), "{log}");
    }

    fn what_is_wrong_is_said_once(cgroup: &Cgroup) {
        let daemon = Daemon::new(|stream, _| write(&stream, "nonsense\r\n"));
        let head = format!("[containers]\nsockets = [\"{}\"]\n", daemon.socket().display());
        let mut bed = Bed::with(cgroup, head, "");
        wait_for("several attempts", SOON, || daemon.asked() > 2).unwrap();
        let log = bed.agent.take().expect("it runs").log();
        assert_eq!(log.matches("does not tell which containers").count(), 1, "{log}");
    }
}
