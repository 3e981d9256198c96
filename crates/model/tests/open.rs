//! What the protocol does not keep. A test that fails here is good news. Where the model knows a rule
//! that would help, it shows that it does.

use model::{Case, File, HalfClose, Property, Rule, Rules};

fn open(case: Case, property: Property) {
    let checked = case.check(Rules::all());
    let found = checked
        .broken
        .iter()
        .find(|broken| broken.property == property);
    let found = found.unwrap_or_else(|| panic!("only {:?}", checked.broken));
    println!("{case:?} {found}");
}

/// The same, and holds with this rule.
fn open_but_for(rule: Rule, case: Case, property: Property) {
    open(case, property);
    let checked = case.check(Rules::all().with(rule));
    println!("{} states with {rule:?}", checked.states);
    assert_eq!(checked.broken, [], "with {rule:?}");
}

const ACCEPTED_AND_BLOCKS: Case = Case {
    reader: File::BLOCKS,
    ..Case::PLAIN
};

#[test]
fn one_thread_sends_and_another_shuts_down() {
    let case = Case {
        shuts_down_while_sending: true,
        messages: 1,
        ..Case::PLAIN
    };
    open(case, Property::NothingLost);
}

#[test]
fn no_memory_for_the_last_segment_before_the_end() {
    let case = Case {
        memory_fails: true,
        messages: 1,
        ..Case::PLAIN
    };
    open(case, Property::NothingLost);
}

#[test]
fn a_blocking_call_begins_between_look_and_removal() {
    let case = Case {
        detaches: 1,
        slow_looks: true,
        messages: 2,
        ..ACCEPTED_AND_BLOCKS
    };
    open_but_for(Rule::InsideLast, case, Property::NoCallFails);
}

#[test]
fn accepted_and_half_closed_with_data_queued() {
    let case = Case {
        half_close: HalfClose::BetweenReads,
        ..ACCEPTED_AND_BLOCKS
    };
    open(case, Property::NoCallFails);
}

#[test]
fn accepted_and_read_by_two_blocking_threads() {
    let case = Case {
        readers: 2,
        ..ACCEPTED_AND_BLOCKS
    };
    open(case, Property::NoCallFails);
}
