//! The page in a browser: what it shows is what the test itself did, for everybody who may look at it and nobody else.

mod common;

use std::fs;
use std::net::TcpStream;
use std::process::Command;

use common::browser::Browser;
use common::{Agent, Beeline, SOON, output_of, pair, text};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde_json::Value;
use testbed::traffic::options::SocketOptions;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

/// What to look for in a page that anybody is to be able to read; returns what is wrong.
const AUDIT: &str = include_str!("page/audit.js");

/// An agent, and the page's address by `beeline status`.
fn serving(beeline: &Beeline) -> (Agent, String) {
    let agent = beeline.agent_at("127.0.0.1:0");
    let page = beeline.status()["agent"]["page"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        agent.said.contains(&format!("page at {page}")),
        "{}",
        agent.said
    );
    (agent, page)
}

fn address(sock: &TcpStream) -> String {
    sock.local_addr().unwrap().to_string()
}

/// Whether the table has a row with all these texts.
fn row(texts: &[&str]) -> String {
    let texts = Value::from(texts.to_vec());
    format!(
        "[...document.querySelectorAll('#table tbody tr')].some(row => {texts}.every(text => row.innerText.includes(text)))"
    )
}

fn is(selector: &str, text: &str) -> String {
    format!("document.querySelector({selector:?}).innerText === {text:?}")
}

kernel_test! {
    fn it_shows_a_connection_as_it_changes(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait(&is("#state", "Live"));
        browser.wait(&is("#shown", "No connections are enrolled."));
        let (client, server) = pair();
        stream::send(&client, 1, 10_240, 1_024).unwrap();
        browser.wait(&row(&[&address(&client), &address(&server), "→ socket", "← start", "10.0 KiB"]));
        browser.wait(&is("#redirected", "10.0 KiB"));
        browser.wait(&is("#count", "1"));
        browser.wait("document.querySelectorAll('#map g.node').length === 1");
        browser.wait("document.querySelector('#map path').classList.contains('socket')");
        assert!(browser.text("#table tbody").contains(&format!("[{}]", std::process::id())));
        assert_eq!(browser.text("#messages"), "in 10 messages");
        assert_eq!(browser.text("#gain-cpu"), "under 1 ms");
        stream::send(&server, 2, 1_048_576, 65_536).unwrap();
        browser.wait(&row(&[&address(&client), "→ socket", "← socket", "1.01 MiB"]));
        drop((client, server));
        browser.wait(&is("#shown", "No connections are enrolled."));
        browser.wait(&is("#redirected", "1.01 MiB"));
        assert_eq!(browser.complaints, [""; 0]);
    }

    fn it_says_what_is_not_accelerated_and_why(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let mut browser = Browser::start();
        browser.open(&url);
        let options = SocketOptions::new().mptcp();
        let (listener, addr) = options.listen(([127, 0, 0, 1], 0)).unwrap();
        let _client = options.connect(addr).unwrap();
        let _server = traffic::accept(&listener).unwrap();
        let counted = || beeline.status()["work"]["reasons"]["mptcp"].as_u64();
        wait_for("the count", SOON, || counted().is_some()).unwrap();
        let row = "[...document.querySelectorAll('#reasons tbody tr')].map(row => row.innerText).find(text => text.includes('mptcp'))";
        let line = format!("{}\tmptcp\ta subflow of a Multipath TCP connection", counted().unwrap());
        browser.wait(&format!("{row}?.trim() === {line:?}"));
    }

    fn a_line_of_the_map_has_the_histograms_of_its_pair(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let (client, server) = pair();
        stream::send(&client, 1, 10_000, 1_000).unwrap();
        stream::send(&server, 2, 900_000, 300_000).unwrap();
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait("document.querySelectorAll('#map path').length === 1");
        assert_eq!(browser.value("document.querySelector('#histograms').open"), false);
        browser.value("document.querySelector('#map path').dispatchEvent(new Event('click'))");
        let name = format!("/{}", cgroup.path().file_name().unwrap().to_str().unwrap());
        browser.wait(&format!("document.querySelector('#pair').value === '{name} → {name}'"));
        // Buckets in between are there, and empty.
        let sizes = "[...document.querySelectorAll('#bars table')].find(one => one.innerText.includes('skipped the stack'))";
        browser.wait(&format!("{sizes}?.querySelector('tbody').innerText.startsWith('1.00 KiB\\t10')"));
        browser.wait(&format!("{sizes}?.querySelector('tbody').innerText.includes('\\n512 KiB\\t3')"));
        browser.wait(&format!("{sizes}?.querySelector('caption').innerText.includes(': 13, ')"));
        let widths = format!("[...{sizes}.querySelectorAll('i')].map(bar => bar.style.width)");
        assert_eq!(browser.value(&widths)[0], "100%");
        browser.value("document.querySelector('#pair').value = 'all of the host'; document.querySelector('#pair').dispatchEvent(new Event('change'))");
        browser.wait(&format!("{sizes}?.querySelector('caption').innerText.includes(': 13, ')"));
        stream::send(&client, 3, 4_000, 1_000).unwrap();
        browser.wait(&format!("{sizes}?.querySelector('caption').innerText.includes(': 17, ')"));
        assert_eq!(browser.complaints, [""; 0]);
    }

    fn anybody_can_use_it(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let (client, server) = pair();
        let (_other, _other_server) = pair();
        stream::send(&client, 1, 100_000, 1_000).unwrap();
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait(&row(&[&address(&client), &address(&server)]));
        browser.value("document.querySelector('#histograms').open = true");
        browser.wait("document.querySelectorAll('#bars table').length > 1");
        for (width, height) in [(1280, 900), (360, 740)] {
            browser.resize(width, height);
            browser.wait("document.querySelector('#map svg').viewBox.baseVal.width === document.querySelector('#map').clientWidth");
            for scheme in ["light", "dark"] {
                browser.prefer(scheme);
                browser.screenshot(&format!("{width}-{scheme}"));
                let wrong = browser.value(AUDIT);
                assert_eq!(wrong, Value::from(Vec::<Value>::new()), "{width} pixels, {scheme}");
            }
        }
        assert_eq!(nameless(&mut browser), [""; 0]);
        assert_eq!(browser.complaints, [""; 0]);
    }

    fn the_keyboard_is_enough(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let ((little, _a), (much, _b)) = (pair(), pair());
        stream::send(&little, 1, 100, 100).unwrap();
        stream::send(&much, 1, 9_000, 900).unwrap();
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait("document.querySelectorAll('#table tbody tr').length === 2");
        let focus = |browser: &mut Browser, what: &str| {
            let reached = (0..30).any(|_| {
                browser.press("Tab");
                browser.value(&format!("document.activeElement.matches({what:?})")) == true
            });
            assert!(reached, "{what} is reached with the tabulator key");
            let ring = browser.value("getComputedStyle(document.activeElement).outlineStyle !== 'none' || getComputedStyle(document.activeElement.firstChild).strokeWidth === '3px'");
            assert_eq!(ring, true, "{what} shows that it has the focus");
        };
        focus(&mut browser, ".skip");
        focus(&mut browser, "#pause");
        focus(&mut browser, "#map g.node");
        browser.press("Enter");
        browser.wait("document.querySelector('#only').hidden === false");
        browser.press("Escape");
        browser.wait("document.querySelector('#only').hidden");
        focus(&mut browser, "#search");
        browser.write(&format!("port:{} path:socket", little.peer_addr().unwrap().port()));
        browser.wait("document.querySelectorAll('#table tbody tr').length === 1");
        browser.wait(&is("#shown", "1 of 2 connections fit."));
        browser.value("document.querySelector('#search').select()");
        browser.write("no-such");
        browser.wait(&is("#shown", "None of 2 connections fits."));
        browser.value("document.querySelector('#search').select()");
        browser.write(" ");
        focus(&mut browser, "th:nth-child(5) button");
        assert_eq!(browser.value("document.activeElement.parentElement.ariaSort"), "descending");
        let first = format!("document.querySelector('#table tbody tr').innerText.includes('{}')", address(&much));
        browser.wait(&first);
        browser.press("Enter");
        assert_eq!(browser.value("document.activeElement.parentElement.ariaSort"), "ascending");
        browser.wait(&format!("!{first}"));
    }

    fn it_tells_when_it_is_not_live_and_comes_back(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (agent, url) = serving(&beeline);
        let listen = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait(&is("#state", "Live"));
        agent.kill();
        browser.wait("document.querySelector('#state').innerText.includes('Not live since')");
        let (client, server) = pair();
        stream::send(&client, 1, 2_048, 2_048).unwrap();
        let _agent = beeline.agent_at(&listen);
        browser.wait(&is("#state", "Live"));
        browser.wait(&row(&[&address(&client), &address(&server), "2.00 KiB"]));
        browser.value("document.querySelector('#pause').click()");
        browser.wait("document.querySelector('#state').innerText.startsWith('Paused at')");
        drop((client, server));
        wait_for("the end", SOON, || beeline.status()["work"]["connections"] == 0).unwrap();
        assert_eq!(browser.value("document.querySelectorAll('#table tbody tr').length"), 1);
        browser.value("document.querySelector('#pause').click()");
        browser.wait("document.querySelectorAll('#table tbody tr').length === 0");
    }

    fn names_from_the_host_are_never_markup(cgroup: &Cgroup) {
        const NAME: &str = "<b id=evil>x";
        fs::write("/proc/self/comm", NAME).unwrap();
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let (client, _server) = pair();
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait(&row(&[NAME, &address(&client)]));
        browser.wait(&format!("document.querySelector('#map text').textContent.includes({NAME:?})"));
        assert_eq!(browser.value("document.querySelector('#evil')"), Value::Null);
        let blocked = "(() => { try { document.body.innerHTML = '<i>'; return false; } catch { return true; } })()";
        assert_eq!(browser.value(blocked), true, "the policy forbids markup from text");
    }

    fn two_thousand_connections_fit(cgroup: &Cgroup) {
        let files = Rlimit { current: Some(8_192), maximum: Some(8_192) };
        setrlimit(Resource::Nofile, files).unwrap();
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let pairs: Vec<_> = (0..2_000).map(|_| pair()).collect();
        stream::send(&pairs[7].0, 1, 5_000, 1_000).unwrap();
        let mut browser = Browser::start();
        browser.open(&url);
        browser.wait(&is("#shown", "50 of 2,000 shown."));
        browser.wait(&row(&[&address(&pairs[7].0), "4.88 KiB"]));
        browser.screenshot("many");
        browser.value("document.querySelector('#more').click()");
        browser.wait("document.querySelectorAll('#table tbody tr').length === 100");
        browser.wait(&is("#state", "Live"));
        assert_eq!(browser.complaints, [""; 0]);
    }

    fn strangers_do_not_get_it(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let ask = |args: &[&str], path: &str| {
            let mut curl = Command::new("curl");
            let curl = curl.args(["-sSi", "--max-time", "20"]).args(args).arg(format!("{url}{path}"));
            text(&output_of(curl))
        };
        for path in ["", "api/status", "api/conns", "api/hist", "api/live"] {
            assert!(ask(&["-H", "Host: evil.example"], path).starts_with("HTTP/1.1 421"), "{path}");
            let elsewhere = ["-H", "Sec-Fetch-Site: cross-site", "-H", "Sec-Fetch-Mode: no-cors"];
            assert!(ask(&elsewhere, path).starts_with("HTTP/1.1 403"), "{path}");
        }
        let page = ask(&[], "");
        assert!(page.starts_with("HTTP/1.1 200") && page.contains("script-src 'self'"), "{page}");
        assert!(ask(&[], "no-such").starts_with("HTTP/1.1 404"));
        assert!(ask(&["-X", "POST"], "").starts_with("HTTP/1.1 405"));
        assert!(ask(&["-H", "Host: evil.example"], "metrics").starts_with("HTTP/1.1 200"));
    }

    fn its_model_is_that_of_the_commands(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let (_agent, url) = serving(&beeline);
        let (client, _server) = pair();
        stream::send(&client, 1, 5_000, 1_000).unwrap();
        let ask = |path: &str| -> Value {
            let output = output_of(Command::new("curl").args(["-sSf", "--max-time", "20", &format!("{url}{path}")]));
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)))
        };
        let own = |mut conns: Value| {
            let conns = conns.as_array_mut().unwrap();
            // The request is one, too.
            conns.retain(|conn| conn["client"]["local"] == address(&client));
            conns.iter_mut().for_each(|conn| conn["age_seconds"] = 0.into());
            conns.clone()
        };
        let conns = own(ask("api/conns"));
        assert_eq!(conns.len(), 1);
        assert_eq!(conns, own(beeline.json(&["conns", "--json"])));
        let status = ask("api/status");
        assert!(status["work"]["redirected_messages"].as_u64() >= Some(5));
        let keys = |status: &Value| status["work"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&status), keys(&beeline.status()));
    }
}

/// Roles of what a user can operate, or has to be told of, that has no name for a screen reader.
fn nameless(browser: &mut Browser) -> Vec<String> {
    let tree = browser.call("Accessibility.getFullAXTree", serde_json::json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let role = |node: &Value| {
        node["role"]["value"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    let roles: Vec<String> = nodes.iter().map(role).collect();
    for landmark in [
        "banner",
        "main",
        "contentinfo",
        "search",
        "table",
        "status",
        "heading",
    ] {
        assert!(
            roles.iter().any(|role| role == landmark),
            "no {landmark} in {roles:?}"
        );
    }
    let needs = [
        "button",
        "searchbox",
        "link",
        "table",
        "region",
        "columnheader",
        "list",
        "group",
    ];
    let named = |node: &Value| {
        node["name"]["value"]
            .as_str()
            .is_some_and(|name| !name.trim().is_empty())
    };
    let bad = nodes.iter().filter(|node| {
        node["ignored"] == false && needs.contains(&role(node).as_str()) && !named(node)
    });
    bad.map(role).collect()
}
