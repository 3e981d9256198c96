//! HTTP over a unix socket, with bounds on time and size.

use std::io;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long an answer may take, all of it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of an answer, or of one event. Some 10,000 containers with many labels fit.
const MOST: usize = 64 << 20;
const MOST_EVENT: usize = 1 << 20;

/// Why there is no answer, or none that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("it does not speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error("it has not answered for {} s", PATIENCE.as_secs())]
    Slow,
    #[error("it answers more than {} MiB", MOST >> 20)]
    Large,
    #[error("it tells of something in more than {} MiB", MOST_EVENT >> 20)]
    LargeEvent,
    #[error("it answers nonsense: {0}")]
    Nonsense(#[from] serde_json::Error),
    #[error("it has ended the connection")]
    Ended,
}

impl Error {
    /// Whether nobody is there at all.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Self::Connect(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The whole body of an answer.
pub(super) async fn get(socket: &Path, path: &str) -> Result<Bytes, Error> {
    let answer = async {
        let body = request(socket, path).await?.into_body();
        let collected = Limited::new(body, MOST).collect().await;
        Ok(collected.map_err(no_body)?.to_bytes())
    };
    timeout(PATIENCE, answer).await.unwrap_or(Err(Error::Slow))
}

/// An answer without an end, in lines.
pub(super) async fn follow(socket: &Path, path: &str) -> Result<Lines, Error> {
    let answer = timeout(PATIENCE, request(socket, path)).await;
    Ok(Lines {
        body: answer.unwrap_or(Err(Error::Slow))?.into_body(),
        begun: Vec::new(),
    })
}

async fn request(socket: &Path, path: &str) -> Result<Response<Incoming>, Error> {
    let stream = UnixStream::connect(socket).await.map_err(Error::Connect)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer, or when that is not wanted any more; who reads learns of errors.
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = path.parse().expect("paths are written here");
    let host = header::HeaderValue::from_static("localhost");
    request.headers_mut().insert(header::HOST, host);
    let response = sender.send_request(request).await?;
    match response.status() {
        StatusCode::OK => Ok(response),
        other => Err(Error::Status(other)),
    }
}

fn no_body(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    if error.is::<LengthLimitError>() {
        return Error::Large;
    }
    match error.downcast::<hyper::Error>() {
        Ok(error) => Error::Http(*error),
        Err(_) => Error::Ended,
    }
}

/// Lines of an answer that goes on.
pub(super) struct Lines {
    body: Incoming,
    /// What has no end yet.
    begun: Vec<u8>,
}

impl Lines {
    /// Waits for some, and returns those that are complete, with their ends. Loses nothing if it is not
    /// waited for to the end.
    pub(super) async fn next(&mut self) -> Result<Vec<u8>, Error> {
        let frame = self.body.frame().await.ok_or(Error::Ended)??;
        let Ok(data) = frame.into_data() else {
            return Ok(Vec::new()); // Trailers.
        };
        self.begun.extend_from_slice(&data);
        let complete = self.begun.iter().rposition(|byte| *byte == b'\n');
        let rest = self.begun.split_off(complete.map_or(0, |at| at + 1));
        let lines = std::mem::replace(&mut self.begun, rest);
        if self.begun.len() > MOST_EVENT {
            return Err(Error::LargeEvent);
        }
        Ok(lines)
    }
}
