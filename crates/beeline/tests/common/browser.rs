//! Headless Chromium, told what to do over a pipe in its own DevTools protocol
//! (<https://chromedevtools.github.io/devtools-protocol/>): messages of JSON, each with a zero byte behind it.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::{env, fs, thread};

use serde_json::{Value, json};
use tempfile::TempDir;
use testbed::{Cgroup, wait_for};

use super::SOON;

/// Either package of Debian will do.
const PROGRAMS: [&str; 2] = ["chromium-headless-shell", "chromium"];

/// Runs in a cgroup of its own, so that its requests are not among what the test looks at, and asks nobody but loopback.
const START: &str = r#"echo $$ >"$0/cgroup.procs" && exec "$@" 3<&0 4>&1 </dev/null >/dev/null"#;

/// Where screenshots go, if anywhere: a directory.
const SCREENSHOTS: &str = "BEELINE_SCREENSHOTS";

/// A browser with one tab.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    session: Option<String>,
    calls: u64,
    /// What the page, or the browser about the page, complained of.
    pub complaints: Vec<String>,
    _profile: TempDir,
    cgroup: Cgroup,
}

impl Browser {
    /// Shows nothing yet, and complains of nothing.
    pub fn start() -> Self {
        let (profile, cgroup) = (TempDir::new().unwrap(), Cgroup::create("browser").unwrap());
        let mut child = Command::new("sh")
            .args(["-c", START])
            .arg(cgroup.path())
            .arg(program())
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args([
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
            ])
            .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("--remote-debugging-pipe")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut browser = Self {
            child,
            to,
            from: read(from),
            session: None,
            calls: 0,
            complaints: Vec::new(),
            _profile: profile,
            cgroup,
        };
        browser.open_tab();
        browser
    }

    fn open_tab(&mut self) {
        let tab = self.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": tab["targetId"], "flatten": true });
        let session = self.call("Target.attachToTarget", attach);
        self.session = Some(session["sessionId"].as_str().unwrap().into());
        for domain in ["Page", "Runtime", "Log", "Accessibility"] {
            self.call(&format!("{domain}.enable"), json!({}));
        }
    }

    /// Calls a method of the protocol, and returns its result.
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let mut request = json!({ "id": self.calls, "method": method, "params": params });
        if let Some(session) = &self.session {
            request["sessionId"] = session.as_str().into();
        }
        self.to
            .write_all(format!("{request}\0").as_bytes())
            .expect("the browser runs");
        loop {
            let message = self.from.recv_timeout(SOON).expect("the browser answers");
            if message["id"] == self.calls {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
            self.note(&message);
        }
    }

    /// Keeps what a developer would see in red.
    fn note(&mut self, event: &Value) {
        let params = &event["params"];
        let bad = match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => {
                params["type"] == "error" || params["type"] == "warning"
            }
            Some("Log.entryAdded") => params["entry"]["level"] == "error",
            _ => false,
        };
        if bad {
            self.complaints.push(params.to_string());
        }
    }

    pub fn open(&mut self, url: &str) {
        let answer = self.call("Page.navigate", json!({ "url": url }));
        assert!(answer["errorText"].is_null(), "{url}: {answer}");
        self.wait("document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    pub fn value(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", params);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// The text of an element, as a reader sees it.
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?}).innerText"));
        text.as_str().unwrap().into()
    }

    /// Waits until an expression is true.
    pub fn wait(&mut self, expression: &str) {
        let seen = wait_for(expression, SOON, || self.value(expression) == true);
        if seen.is_err() {
            let text = self.text("body");
            panic!(
                "never: {expression}; the page said: {text}; it complained of {:?}",
                self.complaints
            );
        }
    }

    /// Presses and lets go of a key, as `Tab` or `Enter`.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "ArrowDown" => 40,
            _ => panic!("its code belongs here: {key}"),
        };
        let mut down =
            json!({ "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code });
        if key == "Enter" {
            down["text"] = "\r".into();
        }
        self.call("Input.dispatchKeyEvent", down);
        let up = json!({ "type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code });
        self.call("Input.dispatchKeyEvent", up);
    }

    /// Types into what has the focus.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// The size of the window in CSS pixels.
    pub fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", size);
        // They would be missing in a picture, and the picture narrower.
        self.call("Emulation.setScrollbarsHidden", json!({ "hidden": true }));
    }

    /// What the user prefers: `light` or `dark`.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Keeps a picture of the whole page if somebody wants to look at it.
    pub fn screenshot(&mut self, name: &str) {
        let Some(dir) = env::var_os(SCREENSHOTS) else {
            return;
        };
        let picture = self.call(
            "Page.captureScreenshot",
            json!({ "captureBeyondViewport": true }),
        );
        let file = fs::File::create(Path::new(&dir).join(format!("{name}.png"))).unwrap();
        let mut decode = Command::new("base64");
        let mut decode = decode
            .arg("-d")
            .stdin(Stdio::piped())
            .stdout(file)
            .spawn()
            .unwrap();
        let data = picture["data"].as_str().unwrap().as_bytes();
        decode.stdin.take().unwrap().write_all(data).unwrap();
        assert!(decode.wait().unwrap().success());
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its helpers as well, which would go on writing to the profile while that is removed.
        let _ = fs::write(self.cgroup.path().join("cgroup.kill"), "1");
        let _ = self.child.wait();
        let gone = || self.cgroup.members().is_ok_and(|left| left.is_empty());
        let _ = wait_for("the end of the browser", SOON, gone);
    }
}

fn program() -> &'static str {
    let path = env::var_os("PATH").unwrap_or_default();
    let there = |name: &&&str| env::split_paths(&path).any(|dir| dir.join(name).exists());
    PROGRAMS
        .iter()
        .find(there)
        .expect("chromium-headless-shell or chromium is installed")
}

fn read(from: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let messages = BufReader::new(from).split(0).map_while(Result::ok);
        for message in messages {
            let message = serde_json::from_slice(&message).expect("the browser speaks JSON");
            if sender.send(message).is_err() {
                return;
            }
        }
    });
    receiver
}
