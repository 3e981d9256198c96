//! At most so many events a second.

/// One second, as events tell the time.
const SECOND_NS: u64 = 1_000_000_000;

/// Admits the first events of each second. Time is that of the events, so that a backlog is
/// thinned out as it would have been.
pub(super) struct Pace {
    rate: Option<u32>,
    since_ns: u64,
    admitted: u32,
}

impl Pace {
    /// Everything passes without a rate.
    pub(super) fn new(rate: Option<u32>) -> Self {
        Self {
            rate,
            since_ns: 0,
            admitted: 0,
        }
    }

    /// Whether there is room for an event that happened then.
    pub(super) fn admits(&mut self, at_ns: u64) -> bool {
        let Some(rate) = self.rate else {
            return true;
        };
        // Events of several processors are not quite in order.
        if at_ns.saturating_sub(self.since_ns) >= SECOND_NS {
            (self.since_ns, self.admitted) = (at_ns, 0);
        }
        let room = self.admitted < rate;
        self.admitted += u32::from(room);
        room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_room_for_so_many() {
        let mut pace = Pace::new(Some(2));
        let times = [
            0,
            1,
            2,
            SECOND_NS - 1,
            SECOND_NS,
            SECOND_NS + 1,
            SECOND_NS + 2,
        ];
        let start = 5 * SECOND_NS;
        let admitted = times.map(|at| pace.admits(start + at));
        assert_eq!(admitted, [true, true, false, false, true, true, false]);
    }

    #[test]
    fn an_older_event_belongs_to_the_second_that_runs() {
        let mut pace = Pace::new(Some(1));
        assert!(pace.admits(9 * SECOND_NS));
        assert!(!pace.admits(8 * SECOND_NS));
    }

    #[test]
    fn without_a_rate_everything_passes() {
        let mut pace = Pace::new(None);
        assert!((0..1000).all(|_| pace.admits(1)));
    }
}
