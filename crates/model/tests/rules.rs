//! Each rule is needed: without it the model finds what the rule is there for. `--nocapture` shows
//! the shortest way there.

use model::{Case, Enrolments, HalfClose, Property, Reads, Rule, Rules};

/// Holds with the rule, and breaks the property without it.
fn needed(case: Case, rule: Rule, property: Property) {
    assert_eq!(case.check(Rules::all()).broken, [], "with {rule:?}");
    let checked = case.check(Rules::all().without(rule));
    let found = checked
        .broken
        .iter()
        .find(|broken| broken.property == property);
    let found = found.unwrap_or_else(|| panic!("without {rule:?}, only {:?}", checked.broken));
    println!("without {rule:?} {found}");
}

const EDGE: Case = Case {
    reads: Reads::EdgeTriggered,
    ..BASE
};
const BASE: Case = Case {
    reads: Reads::Blocking,
    readers: 1,
    enrolment: Enrolments::SenderConnects,
    half_close: HalfClose::Never,
    detaches: 0,
    retires: false,
    resets: false,
    waits_for_answer: false,
    shuts_down_while_sending: false,
    messages: 4,
    queue_limit: 1,
    window: 2,
    buffer: 2,
};

#[test]
fn return_while_bytes_are_in_flight() {
    needed(BASE, Rule::Acknowledged, Property::InOrder);
}

#[test]
fn return_while_bytes_are_unread() {
    needed(BASE, Rule::Copied, Property::InOrder);
}

#[test]
fn return_while_a_reader_sleeps_natively() {
    let case = Case {
        reads: Reads::WaitAll,
        waits_for_answer: true,
        messages: 2,
        ..BASE
    };
    needed(case, Rule::NoNativeSleeper, Property::NoHang);
}

#[test]
fn redirect_without_a_limit() {
    needed(BASE, Rule::QueueLimit, Property::Bounded);
}

#[test]
fn released_while_messages_are_redirected() {
    for case in [
        Case {
            detaches: 1,
            ..BASE
        },
        Case {
            retires: true,
            ..BASE
        },
    ] {
        needed(case, Rule::Retired, Property::NoCallFails);
    }
}

#[test]
fn released_with_data_queued() {
    let case = Case {
        detaches: 1,
        ..BASE
    };
    needed(case, Rule::NothingQueued, Property::NothingLost);
}

#[test]
fn released_while_a_sender_is_between_verdict_and_queue() {
    let case = Case {
        detaches: 1,
        ..BASE
    };
    needed(case, Rule::NobodyBetween, Property::NothingLost);
    needed(case, Rule::NobodyBetween, Property::NoCallFails);
}

#[test]
fn half_closed_and_still_enrolled() {
    let case = Case {
        half_close: HalfClose::AtRest,
        ..BASE
    };
    needed(case, Rule::HalfClosedLeaves, Property::NoCallFails);
}

#[test]
fn native_bytes_behind_unread_redirected_ones() {
    let case = Case {
        queue_limit: 0,
        ..EDGE
    };
    needed(case, Rule::RingAfterQueue, Property::NoHang);
}

#[test]
fn two_threads_read_one_blocking_socket() {
    let case = Case { readers: 2, ..BASE };
    needed(case, Rule::BlockingIsAlone, Property::NoCallFails);
}

#[test]
fn one_thread_reads_and_another_half_closes() {
    let case = Case {
        half_close: HalfClose::AnyTime,
        ..BASE
    };
    needed(case, Rule::BlockingIsAlone, Property::NoCallFails);
}

#[test]
fn enrolled_under_a_blocking_reader() {
    let enrolment = Enrolments::ReaderLate;
    let case = Case {
        enrolment,
        waits_for_answer: true,
        messages: 1,
        ..BASE
    };
    needed(case, Rule::LateIsNonBlocking, Property::NoHang);
}

#[test]
fn enrolled_while_a_call_looks_for_data() {
    let case = Case {
        enrolment: Enrolments::ReaderLate,
        ..EDGE
    };
    needed(case, Rule::LateAfterCalls, Property::NothingLost);
}

#[test]
fn redirected_behind_what_was_sent_before_enrolment() {
    let case = Case {
        enrolment: Enrolments::BothLate,
        ..EDGE
    };
    needed(case, Rule::LateStartsAtRest, Property::InOrder);
}
