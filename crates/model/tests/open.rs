//! What the protocol does not keep yet. A test that fails here is good news.

use model::{Case, Enrolments, HalfClose, Property, Reads, Rules};

fn open(case: Case, property: Property) {
    let checked = case.check(Rules::all());
    let found = checked
        .broken
        .iter()
        .find(|broken| broken.property == property);
    let found = found.unwrap_or_else(|| panic!("only {:?}", checked.broken));
    println!("{case:?} {found}");
}

#[test]
fn half_closed_with_data_queued() {
    let half_close = HalfClose::BetweenReads;
    open(
        Case {
            half_close,
            ..Case::default()
        },
        Property::NoCallFails,
    );
}

#[test]
fn half_closed_before_the_peer_is_enrolled() {
    let (half_close, enrolment) = (HalfClose::BetweenReads, Enrolments::ReaderConnects);
    open(
        Case {
            half_close,
            enrolment,
            messages: 0,
            ..Case::default()
        },
        Property::NoCallFails,
    );
}

#[test]
fn one_thread_sends_and_another_shuts_down() {
    let reads = Reads::EdgeTriggered;
    let shuts_down_while_sending = true;
    open(
        Case {
            reads,
            shuts_down_while_sending,
            messages: 1,
            ..Case::default()
        },
        Property::NothingLost,
    );
}

#[test]
fn two_threads_read_one_non_blocking_socket() {
    let reads = Reads::LevelTriggered;
    open(
        Case {
            reads,
            readers: 2,
            messages: 5,
            ..Case::default()
        },
        Property::InOrder,
    );
}

#[test]
fn retired_while_the_server_is_enrolled() {
    open(
        Case {
            enrolment: Enrolments::ReaderConnects,
            retires: true,
            messages: 1,
            ..Case::default()
        },
        Property::NothingLost,
    );
}
