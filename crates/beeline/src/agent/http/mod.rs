//! The agent's HTTP server: metrics, and a page for people.

mod admit;
mod api;
mod files;
mod watch;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use tokio::runtime;
use tracing::{debug, warn};

use crate::instance::Instance;
use crate::observe::metrics::{self, Exporter};

/// A bound address, not served yet.
pub(super) struct Server {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Server {
    /// Binds the address.
    ///
    /// # Errors
    /// When it is taken or none of this host.
    pub(super) fn bind(addr: SocketAddr) -> Result<Self> {
        let bound = TcpListener::bind(addr).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let addr = listener.local_addr()?;
            Ok(Self { listener, addr })
        });
        bound.with_context(|| {
            format!("cannot serve HTTP on {addr}: choose another `listen` in [http], or \"off\"")
        })
    }

    /// The address with its port.
    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves in a thread of its own until the process ends.
    pub(super) fn serve(self, instance: Instance) {
        thread::spawn(move || {
            if let Err(error) = run(self, &instance) {
                warn!("no more metrics, and no page: {error:#}");
            }
        });
    }
}

fn run(server: Server, instance: &Instance) -> Result<()> {
    let routes = routes(instance, server.addr).into_make_service_with_connect_info::<SocketAddr>();
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(server.listener)?;
        Ok(axum::serve(listener, routes).await?)
    })
}

/// Metrics are for whoever can reach the address, the page for this host alone.
fn routes(instance: &Instance, addr: SocketAddr) -> Router {
    let page = Router::new()
        .merge(api::routes(instance))
        .fallback(files::file)
        .layer(middleware::from_fn_with_state(addr, admit::this_host));
    let metrics = Router::new()
        .route("/metrics", get(metrics_page))
        .with_state(Arc::new(Exporter::new(instance.clone())));
    metrics.fallback_service(page)
}

async fn metrics_page(State(exporter): State<Arc<Exporter>>) -> Response {
    debug!("asked for metrics");
    match exporter.render() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}\n")).into_response(),
    }
}
