//! The agent's HTTP server: metrics.

use std::net::{SocketAddr, TcpListener};
use std::thread;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::runtime;
use tracing::{debug, warn};

use crate::instance::Instance;
use crate::observe::metrics;

/// A bound address, not served yet.
pub(super) struct Server {
    listener: TcpListener,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// When it is taken or none of this host.
    pub(super) fn bind(addr: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(addr)
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
            .with_context(|| {
                format!(
                    "cannot serve HTTP on {addr}: choose another `listen` in [http], or \"off\""
                )
            })?;
        Ok(Self { listener })
    }

    /// The address with its port.
    pub(super) fn addr(&self) -> Option<SocketAddr> {
        self.listener.local_addr().ok()
    }

    /// Serves in a thread of its own until the process ends.
    pub(super) fn serve(self, instance: Instance) {
        thread::spawn(move || {
            if let Err(error) = run(self.listener, instance) {
                warn!("no more metrics: {error:#}");
            }
        });
    }
}

fn run(listener: TcpListener, instance: Instance) -> Result<()> {
    let routes = Router::new()
        .route("/metrics", get(metrics_page))
        .with_state(instance);
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        Ok(axum::serve(listener, routes).await?)
    })
}

async fn metrics_page(State(instance): State<Instance>) -> Response {
    debug!("asked for metrics");
    match metrics::render(&instance) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}
