//! The protocol with all its rules keeps every promise, in every order of events.

use model::{Case, Enrolments, HalfClose, Reads, Rules};

const READS: [Reads; 4] = [
    Reads::Blocking,
    Reads::WaitAll,
    Reads::LevelTriggered,
    Reads::EdgeTriggered,
];

fn holds(case: Case) {
    let checked = case.check(Rules::all());
    println!("{} states: {case:?}", checked.states);
    assert_eq!(checked.broken, [], "{case:?}");
    assert!(checked.returned, "no way back was tried: {case:?}");
}

#[test]
fn whoever_connects_and_however_it_reads() {
    for reads in READS {
        for enrolment in [Enrolments::SenderConnects, Enrolments::ReaderConnects] {
            for queue_limit in [0, 1, 2] {
                for waits_for_answer in [false, true] {
                    holds(Case {
                        reads,
                        enrolment,
                        queue_limit,
                        messages: queue_limit + 4,
                        waits_for_answer,
                        ..Case::default()
                    });
                }
            }
        }
    }
}

#[test]
fn enrolled_while_in_use() {
    for reads in [Reads::LevelTriggered, Reads::EdgeTriggered] {
        for enrolment in [Enrolments::ReaderLate, Enrolments::BothLate] {
            for waits_for_answer in [false, true] {
                holds(Case {
                    reads,
                    enrolment,
                    waits_for_answer,
                    ..Case::default()
                });
            }
        }
    }
}

#[test]
fn detached_and_taken_back_with_an_agent_that_may_die_at_every_step() {
    for reads in READS {
        for enrolment in [Enrolments::SenderConnects, Enrolments::ReaderConnects] {
            holds(Case {
                reads,
                enrolment,
                detaches: 2,
                ..Case::default()
            });
        }
    }
}

#[test]
fn retired_by_an_agent_that_may_die_at_every_step() {
    for reads in READS {
        let retires = true;
        holds(Case {
            reads,
            retires,
            ..Case::default()
        });
    }
}

#[test]
fn detached_while_somebody_is_enrolled() {
    for enrolment in [Enrolments::ReaderLate, Enrolments::BothLate] {
        let reads = Reads::EdgeTriggered;
        holds(Case {
            reads,
            enrolment,
            detaches: 1,
            ..Case::default()
        });
    }
}

#[test]
fn reset_at_any_moment() {
    for reads in READS {
        holds(Case {
            reads,
            resets: true,
            detaches: 1,
            ..Case::default()
        });
    }
}

#[test]
fn half_closed_between_reads() {
    for enrolment in [Enrolments::SenderConnects, Enrolments::ReaderConnects] {
        for detaches in [0, 1] {
            let half_close = HalfClose::AtRest;
            holds(Case {
                enrolment,
                half_close,
                detaches,
                ..Case::default()
            });
        }
    }
    for reads in [Reads::LevelTriggered, Reads::EdgeTriggered] {
        let half_close = HalfClose::AnyTime;
        holds(Case {
            reads,
            half_close,
            detaches: 1,
            ..Case::default()
        });
    }
}
