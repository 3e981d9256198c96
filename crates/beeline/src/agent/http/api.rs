//! What the page is made of, in JSON: the same as `status --json` and `conns --json`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use datapath::Maps;
use datapath::abi::Reason;
use futures_util::stream;
use serde::Serialize;

use super::watch::{Moment, Watch};
use crate::control;
use crate::instance::Instance;
use crate::observe::hist::{self, PairView, View};
use crate::observe::{conns, status};

#[derive(Clone)]
struct Api {
    instance: Instance,
    watch: Arc<Watch>,
}

pub(super) fn routes(instance: &Instance) -> Router {
    let api = Api {
        instance: instance.clone(),
        watch: Arc::new(Watch::start(instance.clone())),
    };
    Router::new()
        .route("/api/status", get(state))
        .route("/api/conns", get(connections))
        .route("/api/hist", get(histograms))
        .route("/api/reasons", get(reasons))
        .route("/api/live", get(live))
        .with_state(api)
}

async fn state(State(api): State<Api>) -> Response {
    answer(status::read(&api.instance))
}

async fn connections(State(api): State<Api>) -> Response {
    let maps = Maps::open(&api.instance.pins());
    answer(maps.and_then(|maps| conns::list(&api.instance, &maps)))
}

/// The host's, and those of pairs of workloads.
#[derive(Serialize)]
struct Seen {
    host: BTreeMap<&'static str, View>,
    pairs: Vec<PairView>,
}

async fn histograms(State(api): State<Api>) -> Response {
    let maps = Maps::open(&api.instance.pins());
    let seen = maps.and_then(|maps| {
        let snapshot = hist::look(&maps)?;
        Ok(Seen {
            host: hist::views(&snapshot.host().histograms),
            pairs: hist::pairs(&snapshot, &control::names(&api.instance)),
        })
    });
    answer(seen)
}

fn answer<T: Serialize>(found: datapath::Result<T>) -> Response {
    match found {
        Ok(found) => Json(found).into_response(),
        Err(error) => (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n")).into_response(),
    }
}

/// A reason in words.
#[derive(Serialize)]
struct Meaning {
    name: &'static str,
    about: &'static str,
}

async fn reasons() -> Response {
    let all = Reason::ALL.iter().map(|reason| Meaning {
        name: reason.name(),
        about: reason.about(),
    });
    Json(all.collect::<Vec<_>>()).into_response()
}

/// Events `sight`, again and again, or `trouble`, as long as the client listens. One that is too slow misses some.
async fn live(State(api): State<Api>) -> Response {
    let Some(watcher) = api.watch.join() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many watch already\n").into_response();
    };
    let events = stream::unfold(watcher, |mut watcher| async {
        watcher.changed().await.ok()?;
        let event = event(&watcher.borrow_and_update());
        Some((Ok::<_, Infallible>(event), watcher))
    });
    Sse::new(events).into_response()
}

fn event(moment: &Moment) -> Event {
    match moment {
        Moment::Sight(json) => Event::default().event("sight").data(json),
        Moment::Trouble(why) => Event::default().event("trouble").data(why),
    }
}
