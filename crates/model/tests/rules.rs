//! Each rule is needed: without it the model finds what the rule is there for. `--nocapture` shows
//! the shortest way there.

use model::{Case, Enrolments, File, HalfClose, Property, Rule, Rules};

/// Holds with the rule, and breaks the property without it.
fn needed(case: Case, rule: Rule, property: Property) {
    needed_in(Rules::all(), case, rule, property);
}

fn needed_in(rules: Rules, case: Case, rule: Rule, property: Property) {
    assert_eq!(case.check(rules).broken, [], "with {rule:?}");
    let checked = case.check(rules.without(rule));
    let found = checked
        .broken
        .iter()
        .find(|broken| broken.property == property);
    let found = found.unwrap_or_else(|| panic!("without {rule:?}, only {:?}", checked.broken));
    println!("without {rule:?} {found}");
}

const DETACHED: Case = Case {
    detaches: 1,
    messages: 2,
    ..Case::PLAIN
};
const ACCEPTED_AND_BLOCKS: Case = Case {
    reader: File::BLOCKS,
    ..Case::PLAIN
};
const ADOPTED: Case = Case {
    enrolment: Enrolments::SenderAdopted,
    waits_for_answer: true,
    messages: 3,
    ..Case::PLAIN
};

#[test]
fn return_while_bytes_are_in_flight() {
    needed(Case::PLAIN, Rule::Arrived, Property::InOrder);
}

#[test]
fn last_bytes_without_a_limit_or_a_look_at_what_arrived() {
    let case = Case {
        last_bytes: true,
        messages: 6,
        ..Case::PLAIN
    };
    needed(case, Rule::Arrived, Property::InOrder);
    needed(case, Rule::QueueLimit, Property::Bounded);
}

#[test]
fn return_while_bytes_wait_for_accept() {
    let case = Case {
        messages: 2,
        ..Case::PLAIN
    };
    needed(case, Rule::AllQueued, Property::InOrder);
}

#[test]
fn return_while_bytes_wait_for_memory() {
    let case = Case {
        memory_fails: true,
        waits_for_answer: true,
        enrolment: Enrolments::ReaderConnects,
        ..Case::PLAIN
    };
    let rules = Rules::all().with(Rule::PeerUnlocked);
    needed_in(rules, case, Rule::AllQueued, Property::InOrder);
}

#[test]
fn redirect_without_a_limit() {
    needed(Case::PLAIN, Rule::QueueLimit, Property::Bounded);
}

#[test]
fn released_while_messages_are_redirected() {
    let retired = Case {
        retires: true,
        messages: 2,
        ..Case::PLAIN
    };
    // Else there is no target to redirect to.
    let rules = Rules::all().without(Rule::TargetsFirst);
    for case in [DETACHED, retired] {
        needed_in(rules, case, Rule::Retired, Property::NoCallFails);
    }
}

#[test]
fn released_with_data_queued() {
    needed(DETACHED, Rule::NothingQueued, Property::NothingLost);
}

#[test]
fn released_while_a_sender_is_between_verdict_and_queue() {
    needed(DETACHED, Rule::NobodyBetween, Property::NothingLost);
    needed(DETACHED, Rule::NobodyBetween, Property::NoCallFails);
}

#[test]
fn comes_to_block_while_its_sender_redirects_for_the_first_time() {
    let case = Case {
        reader: File::BLOCKS_LATER,
        messages: 2,
        ..Case::PLAIN
    };
    needed(case, Rule::SaysFirst, Property::NoCallFails);
}

#[test]
fn comes_to_block_while_its_sender_redirects_again() {
    let case = Case {
        reader: File::BLOCKS_LATER,
        messages: 4,
        queue_limit: 0,
        ..Case::PLAIN
    };
    needed(case, Rule::TakesBack, Property::NoCallFails);
}

#[test]
fn a_segment_arrives_between_look_and_removal() {
    // Else the last look and the removal are one step in the model.
    let rules = Rules::all().without(Rule::SourceFirst);
    needed_in(
        rules,
        DETACHED,
        Rule::ReleaseUnderLock,
        Property::NothingLost,
    );
}

#[test]
fn released_under_a_blocking_reader() {
    let case = Case {
        detaches: 1,
        messages: 2,
        ..ACCEPTED_AND_BLOCKS
    };
    needed(case, Rule::NobodyInside, Property::NoCallFails);
}

#[test]
fn enrolled_although_it_blocks() {
    let case = Case {
        reader: File::BLOCKS,
        enrolment: Enrolments::ReaderConnects,
        half_close: HalfClose::AnyTime,
        ..Case::PLAIN
    };
    needed(case, Rule::NonBlockingOnly, Property::NoCallFails);
}

#[test]
fn half_closed_and_still_enrolled() {
    let case = Case {
        half_close: HalfClose::AtRest,
        ..ACCEPTED_AND_BLOCKS
    };
    needed(case, Rule::BlockingLeaves, Property::NoCallFails);
}

#[test]
fn adopted_when_a_part_was_read() {
    let case = Case {
        buffer: 1,
        ..ADOPTED
    };
    needed(case, Rule::EntersEmpty, Property::InOrder);
}

#[test]
fn adopted_under_a_reader_that_sleeps() {
    let case = Case {
        reader: File::BLOCKS_AT_FIRST,
        changes_beside_calls: true,
        messages: 2,
        ..ADOPTED
    };
    let rules = Rules::all().with(Rule::NoCallBegun);
    needed_in(rules, case, Rule::EntersWithoutSleeper, Property::NoHang);
}

#[test]
fn redirected_behind_what_was_sent_before_adoption() {
    needed(ADOPTED, Rule::EntersOnKernelPath, Property::InOrder);
}

#[test]
fn retired_while_the_server_is_enrolled() {
    for enrolment in [Enrolments::ReaderConnects, Enrolments::ReaderAdopted] {
        for property in [Property::NothingLost, Property::NoCallFails] {
            let case = Case {
                enrolment,
                retires: true,
                messages: 1,
                ..Case::PLAIN
            };
            needed(case, Rule::TargetsFirst, property);
        }
    }
}

#[test]
fn retired_while_both_are_adopted() {
    let case = Case {
        enrolment: Enrolments::SenderAdopted,
        retires: true,
        messages: 1,
        ..Case::PLAIN
    };
    needed(case, Rule::TargetsFirst, Property::NoCallFails);
}

#[test]
fn an_interrupted_detach_still_waits_for_a_lock() {
    let case = Case {
        detaches: 1,
        sweep_outlives: true,
        messages: 2,
        ..Case::PLAIN
    };
    needed(case, Rule::TargetsFirst, Property::NothingLost);
    needed(case, Rule::TargetsFirst, Property::NoCallFails);
}

#[test]
fn both_ends_come_to_block() {
    let case = Case {
        sender: File::BLOCKS_FOR_A_WHILE,
        reader: File::BLOCKS_LATER,
        messages: 2,
        ..Case::PLAIN
    };
    needed(case, Rule::CountsPeersMaps, Property::NoCallFails);
}

#[test]
fn the_second_end_that_comes_to_block_leaves() {
    let case = Case {
        sender: File::BLOCKS_LATER,
        reader: File::BLOCKS_LATER,
        messages: 1,
        ..Case::PLAIN
    };
    assert!(case.check(Rules::all()).left);
}

#[test]
fn a_call_begins_before_its_socket_is_adopted() {
    let ends_early = Case {
        enrolment: Enrolments::SenderAdopted,
        messages: 3,
        ..Case::PLAIN
    };
    needed(ends_early, Rule::NoCallBegun, Property::NothingLost);
    let may_sleep = Case {
        reader: File::BLOCKS_AT_FIRST,
        changes_beside_calls: true,
        waits_for_answer: true,
        messages: 1,
        ..ends_early
    };
    needed(may_sleep, Rule::NoCallBegun, Property::NoHang);
}

#[test]
fn released_while_what_was_put_aside_is_queued() {
    let case = Case {
        memory_fails: true,
        slow_looks: true,
        detaches: 1,
        messages: 2,
        waits_for_answer: true,
        ..Case::PLAIN
    };
    // The byte is lost, and the sender waits for its answer.
    needed(case, Rule::SourceFirst, Property::NoHang);
}

#[test]
fn no_memory_for_the_last_segment_before_a_return() {
    let case = Case {
        memory_fails: true,
        messages: 3,
        waits_for_answer: true,
        ..Case::PLAIN
    };
    needed(case, Rule::PeerUnlocked, Property::InOrder);
}

#[test]
fn a_segment_comes_again_with_the_next() {
    for enrolment in [Enrolments::SenderConnects, Enrolments::ReaderAdopted] {
        let case = Case {
            enrolment,
            comes_again: 1,
            messages: 3,
            waits_for_answer: true,
            ..Case::PLAIN
        };
        needed(case, Rule::CutsOff, Property::InOrder);
    }
}

#[test]
fn a_segment_comes_again_with_the_end_of_both_streams() {
    let case = Case {
        comes_again: 1,
        half_close: HalfClose::AnyTime,
        ..Case::PLAIN
    };
    needed(case, Rule::KnownUntilLast, Property::InOrder);
}
