//! nginx as the server behind everything that relays, curl and wrk as its clients.

use std::fs;

use testbed::Pod;

use crate::common::Result;
use crate::stage::{Server, Stage};

/// Where the server listens in its pod, and relays in theirs.
pub const WEB: u16 = 8080;
pub const RELAY: u16 = 9000;

/// How often a visitor sends the large file, for which nginx connects to itself: with a head, and without the file.
pub const UPLOADS: u64 = 2;

/// Sizes of the files, in bytes: more than all buffers of a relayed connection, and one that fits in any.
const LARGE: u64 = 24 << 20;
const SMALL: u64 = 1000;

/// Starts nginx with these `server` and `upstream` blocks.
pub fn nginx(stage: &Stage, pod: &Pod, port: u16, blocks: &str) -> Result<Server> {
    let dir = stage.arg(&format!("nginx-{port}"));
    fs::create_dir(&dir)?;
    let text = format!(
        "worker_processes 2; pid {dir}/pid; error_log stderr error; daemon off;
        events {{ worker_connections 512; }}
        http {{
            access_log off; keepalive_requests 100000; client_max_body_size 0;
            client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
            uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
            {blocks}
        }}\n"
    );
    let conf = stage.write(&format!("nginx-{port}.conf"), text)?;
    stage.serve(pod, port, &["nginx", "-p", &dir, "-c", &conf])
}

/// The usual server: files, and `upload`, which keeps what it gets as a file and answers `kept`.
pub fn by_nginx(stage: &Stage) -> Result<Server> {
    let blocks = format!(
        "server {{ listen {WEB}; root {root};
            location = /upload {{
                client_body_in_file_only on; client_body_temp_path {root}/uploads;
                proxy_pass_request_body off; proxy_set_header Content-Length \"\";
                proxy_pass http://127.0.0.1:8081;
            }}
        }}
        server {{ listen 127.0.0.1:8081; return 200 kept; }}",
        root = stage.arg("")
    );
    nginx(stage, &stage.server, WEB, &blocks)
}

/// A server of the files `large` and `small`, and of `upload`.
pub struct Web {
    server: Server,
    large: Vec<u8>,
}

impl Web {
    pub fn start(stage: &Stage, server: impl Fn(&Stage) -> Result<Server>) -> Result<Self> {
        let large = stage.fill("large", LARGE)?;
        stage.fill("small", SMALL)?;
        fs::create_dir(stage.path("uploads"))?;
        let server = server(stage)?;
        Ok(Self { server, large })
    }

    /// What clients do, at this address; returns what they saw. The bytes are right, or it panics.
    pub fn visit(&self, stage: &Stage, base: &str) -> Result<Vec<String>> {
        Ok(vec![
            self.download(stage, &format!("{base}/large"), &[])?,
            self.download(stage, &format!("{base}/large"), &["--limit-rate", "16M"])?,
            self.upload(stage, &format!("{base}/upload"), &[])?,
            self.upload(stage, &format!("{base}/upload"), &["--limit-rate", "16M"])?,
            many_requests(stage, base)?,
            many_connections(stage, base)?,
        ])
    }

    /// Fetches the large file; returns the code of the answer.
    pub fn download(&self, stage: &Stage, url: &str, how: &[&str]) -> Result<String> {
        let got = stage.arg("got");
        let told = curl(stage, &[how, &["-o", &got, url]].concat())?;
        assert!(fs::read(&got)? == self.large, "{url} {how:?}: other bytes");
        Ok(told)
    }

    /// Sends the large file; returns the code of the answer.
    pub fn upload(&self, stage: &Stage, url: &str, how: &[&str]) -> Result<String> {
        let (large, out) = (format!("@{}", stage.arg("large")), stage.arg("answer"));
        let what = ["-H", "Expect:", "-o", &out, "--data-binary", &large, url];
        let told = curl(stage, &[how, &what].concat())?;
        assert_eq!(fs::read_to_string(&out)?, "kept");
        let mut kept = fs::read_dir(stage.path("uploads"))?;
        let kept = kept.next().ok_or("the upload is a file")??.path();
        assert!(fs::read(&kept)? == self.large, "{url} {how:?}: other bytes");
        fs::remove_file(kept)?;
        Ok(told)
    }

    pub fn end(self) -> Result {
        self.server.end_content()
    }
}

fn curl(stage: &Stage, args: &[&str]) -> Result<String> {
    let fixed = [
        "curl",
        "-sSf",
        "-w",
        "%{http_code} %{size_download} %{size_upload}\n",
    ];
    stage.run(&stage.client, &[&fixed, args].concat())
}

/// One connection, one request after the other.
fn many_requests(stage: &Stage, base: &str) -> Result<String> {
    curl(
        stage,
        &["-o", "/dev/null", &format!("{base}/small?[1-300]")],
    )
}

/// Twenty connections that are all busy, for a second.
fn many_connections(stage: &Stage, base: &str) -> Result<String> {
    let url = format!("{base}/small");
    let report = stage.run(
        &stage.client,
        &["wrk", "-t", "1", "-c", "20", "-d", "1", &url],
    )?;
    let failed = ["Non-2xx", "Socket errors"]
        .iter()
        .any(|word| report.contains(word));
    assert!(report.contains("requests in") && !failed, "{report}");
    Ok("all answered".into())
}
