//! Names and labels of containers, from Docker or Podman.
//!
//! Both serve the same API on a unix socket. Nothing but what happens to containers is listened to, and
//! nothing but a look is asked for.

mod api;
mod http;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use self::api::Event;
use self::http::Error;
use super::source::{News, Source};

/// Between two attempts to reach whoever does not answer; at least so long, where nobody is there, and at
/// most so long, where somebody is.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// So often all is looked at: events may be lost, and a daemon that hangs tells none.
const RECHECK: Duration = Duration::from_secs(60);

/// A daemon, by its socket.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
}

/// How it went until now.
struct Attempts {
    pause: Duration,
    /// Whether what is wrong was said.
    is_said: bool,
}

impl Docker {
    /// That listens, or may do so later, on this socket.
    #[must_use]
    pub fn at(socket: PathBuf) -> Self {
        Self { socket }
    }

    /// Reaches it again and again.
    async fn reach(&self, tell: &dyn Fn(News)) {
        let mut attempts = Attempts {
            pause: PAUSE,
            is_said: false,
        };
        loop {
            let begin = Instant::now();
            let Err(error) = self.listen(tell).await;
            if begin.elapsed() > LONGEST_PAUSE {
                attempts.pause = PAUSE;
                attempts.is_said = false;
            }
            self.pause(&mut attempts, &error).await;
        }
    }

    async fn pause(&self, attempts: &mut Attempts, error: &Error) {
        if error.is_absent() {
            return sleep(PAUSE).await;
        }
        if !attempts.is_said {
            attempts.is_said = true;
            warn!(
                "{} does not tell which containers there are: {error}; those known stay known",
                self.socket.display()
            );
        }
        sleep(attempts.pause).await;
        attempts.pause = (attempts.pause * 2).min(LONGEST_PAUSE);
    }

    /// Tells what there is and what happens, until something goes wrong.
    async fn listen(&self, tell: &dyn Fn(News)) -> Result<std::convert::Infallible, Error> {
        // Before the first look, so that what comes meanwhile is seen by one or the other.
        let mut lines = http::follow(&self.socket, api::EVENTS).await?;
        tell(self.all().await?);
        info!(
            "{} tells names and labels of containers",
            self.socket.display()
        );
        let mut next = Instant::now() + RECHECK;
        loop {
            match timeout_at(next, lines.next()).await {
                Ok(lines) => self.look(&lines?, tell).await?,
                Err(_) => {
                    tell(self.all().await?);
                    next = Instant::now() + RECHECK;
                }
            }
        }
    }

    async fn all(&self) -> Result<News, Error> {
        let list = http::get(&self.socket, api::ALL).await?;
        Ok(News::All(api::containers(&list)?))
    }

    /// Events have labels too, but among other things that could be taken for such.
    async fn look(&self, lines: &[u8], tell: &dyn Fn(News)) -> Result<(), Error> {
        for event in api::events(lines)? {
            let id = match event {
                Event::Gone(id) => {
                    tell(News::Gone(id));
                    continue;
                }
                Event::Look(id) => id,
            };
            let list = http::get(&self.socket, &api::one(&id)).await?;
            tell(match api::containers(&list)?.remove(&id) {
                Some(container) => News::Is(id, container),
                None => News::Gone(id),
            });
        }
        Ok(())
    }
}

impl Source for Docker {
    fn first(&self, patience: Duration) -> Option<News> {
        let runtime = runtime().ok()?;
        let told = runtime.block_on(async { timeout(patience, self.all()).await });
        told.ok()?.ok()
    }

    fn follow(&self, tell: &dyn Fn(News)) {
        match runtime() {
            Ok(runtime) => runtime.block_on(self.reach(tell)),
            Err(error) => {
                let socket = self.socket.display();
                warn!("{socket} is not asked for names and labels of containers: {error}");
            }
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().enable_all().build()
}
