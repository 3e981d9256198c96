//! A relay on Tokio, an edge-triggered runtime with several threads: this binary again, as a program of its own.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use crate::common::Result;
use crate::stage::{Server, Stage};
use crate::web::RELAY;

const TO: &str = "BEELINE_TOKIO_RELAY";

pub fn relay_by_tokio(stage: &Stage, to: &str) -> Result<Server> {
    let binary = std::env::current_exe()?.display().to_string();
    let relay = ["--exact", "tokio_relay::play", "--ignored", "--nocapture"];
    let env = ["env", &format!("{TO}={to}"), &binary];
    stage.serve(&stage.proxy, RELAY, &[&env[..], &relay].concat())
}

async fn relay(to: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", RELAY)).await?;
    loop {
        let (mut client, _) = listener.accept().await?;
        let mut server = TcpStream::connect(to).await?;
        tokio::spawn(async move {
            // It fails when one goes away in the middle.
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

#[test]
#[ignore = "a program of other tests, in a process of its own"]
fn play() {
    let Ok(to) = std::env::var(TO) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .build();
    runtime
        .expect("a runtime")
        .block_on(relay(&to))
        .expect("a relay");
}
