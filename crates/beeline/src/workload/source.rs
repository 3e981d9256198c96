//! Those who know more of containers than their cgroups tell.

use std::collections::HashMap;
use std::thread;
use std::time::Duration;

use super::containers::{Container, Containers};

/// What a source tells. Containers are named by their whole ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// These are all that there are now.
    All(HashMap<String, Container>),
    /// One is new, or another than before.
    Is(String, Container),
    /// One is no more.
    Gone(String),
}

/// Somebody who knows names and labels of containers.
pub trait Source: Send {
    /// All that there are, if it can tell so soon; starts no thread.
    fn first(&self, patience: Duration) -> Option<News>;

    /// Tells what there is, and then what changes; returns when it can tell nothing ever. It has a thread
    /// to itself, and outlasts whoever it asks.
    fn follow(&self, tell: &dyn Fn(News));
}

/// All sources.
pub struct Feed(Vec<Box<dyn Source>>);

impl Feed {
    /// Nobody is asked yet.
    #[must_use]
    pub fn of(sources: Vec<Box<dyn Source>>) -> Self {
        Self(sources)
    }

    /// What they tell at once, each asked for at most so long.
    #[must_use]
    pub fn first(&self, patience: Duration) -> Containers {
        let mut known = Containers::default();
        for (number, source) in self.0.iter().enumerate() {
            if let Some(news) = source.first(patience) {
                known.learn(number, news);
            }
        }
        known
    }

    /// Tells what they tell and which of them does, each in a thread of its own that lasts as long as the
    /// process.
    pub fn follow(self, tell: impl Fn(usize, News) + Clone + Send + 'static) {
        for (number, source) in self.0.into_iter().enumerate() {
            let tell = tell.clone();
            thread::spawn(move || source.follow(&|news| tell(number, news)));
        }
    }
}
