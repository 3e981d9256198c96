//! The protocol with all its rules keeps every promise, in every order of events.

use model::{Case, Enrolments, File, HalfClose, Reads, Rule, Rules};

const READS: [Reads; 2] = [Reads::LevelTriggered, Reads::EdgeTriggered];
const AT_THE_HANDSHAKE: [Enrolments; 2] = [Enrolments::SenderConnects, Enrolments::ReaderConnects];
const ADOPTED: [Enrolments; 2] = [Enrolments::SenderAdopted, Enrolments::ReaderAdopted];

fn holds(case: Case) {
    holds_under(Rules::all(), case);
}

fn holds_under(rules: Rules, case: Case) {
    assert!(keeps_all(rules, case), "no way back was tried: {case:?}");
}

/// Whether some direction returned.
fn keeps_all(rules: Rules, case: Case) -> bool {
    let checked = case.check(rules);
    println!("{} states: {case:?}", checked.states);
    assert_eq!(checked.broken, [], "{case:?}");
    checked.returned
}

#[test]
fn whoever_connects_and_however_it_reads() {
    for reads in READS {
        for enrolment in AT_THE_HANDSHAKE {
            for (queue_limit, messages) in [(0, 4), (1, 5), (2, 5)] {
                for waits_for_answer in [false, true] {
                    holds(Case {
                        reads,
                        enrolment,
                        queue_limit,
                        messages,
                        waits_for_answer,
                        ..Case::default()
                    });
                }
            }
        }
    }
}

#[test]
fn last_bytes_take_the_kernel_path() {
    for reads in READS {
        for enrolment in AT_THE_HANDSHAKE {
            for (detaches, resets, messages) in [(0, false, 6), (1, false, 4), (0, true, 4)] {
                holds(Case {
                    reads,
                    enrolment,
                    detaches,
                    resets,
                    messages,
                    last_bytes: true,
                    queue_limit: 0,
                    ..Case::default()
                });
            }
        }
        holds(Case {
            reads,
            sender: File::BLOCKS_FOR_A_WHILE,
            reader: File::BLOCKS_LATER,
            last_bytes: true,
            queue_limit: 0,
            ..Case::default()
        });
        holds(Case {
            reads,
            retires: true,
            last_bytes: true,
            queue_limit: 0,
            ..Case::default()
        });
    }
}

#[test]
fn two_threads_read_one_socket() {
    for reads in READS {
        let (readers, messages) = (2, 4);
        holds(Case {
            reads,
            readers,
            messages,
            ..Case::default()
        });
    }
}

#[test]
fn detached_and_taken_back_with_an_agent_that_may_die_at_every_step() {
    for reads in READS {
        for enrolment in AT_THE_HANDSHAKE {
            holds(Case {
                reads,
                enrolment,
                detaches: 2,
                queue_limit: 0,
                messages: 3,
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
fn reset_at_any_moment() {
    for reads in READS {
        holds(Case {
            reads,
            resets: true,
            detaches: 1,
            queue_limit: 0,
            messages: 3,
            ..Case::default()
        });
    }
}

#[test]
fn segments_come_again_with_the_next() {
    for reads in READS {
        for enrolment in AT_THE_HANDSHAKE.into_iter().chain(ADOPTED) {
            holds(Case {
                reads,
                enrolment,
                comes_again: 2,
                detaches: 1,
                messages: 3,
                queue_limit: 0,
                waits_for_answer: true,
                ..Case::default()
            });
        }
        for memory_fails in [false, true] {
            holds_under(
                Rules::all().with(Rule::PeerUnlocked),
                Case {
                    reads,
                    memory_fails,
                    comes_again: 2,
                    half_close: HalfClose::AnyTime,
                    waits_for_answer: true,
                    ..Case::default()
                },
            );
        }
    }
}

#[test]
fn half_closed_at_any_moment() {
    for reads in READS {
        let half_close = HalfClose::AnyTime;
        holds(Case {
            reads,
            half_close,
            detaches: 1,
            queue_limit: 0,
            messages: 3,
            ..Case::default()
        });
    }
}

#[test]
fn the_readers_socket_blocks_for_a_while() {
    for reads in READS {
        for enrolment in AT_THE_HANDSHAKE {
            holds(Case {
                reads,
                enrolment,
                reader: File::BLOCKS_FOR_A_WHILE,
                changes_beside_calls: true,
                queue_limit: 0,
                messages: 3,
                ..Case::default()
            });
        }
        holds(Case {
            reads,
            reader: File::BLOCKS_LATER,
            detaches: 1,
            queue_limit: 0,
            messages: 3,
            ..Case::default()
        });
    }
}

#[test]
fn the_senders_socket_blocks_for_a_while() {
    for enrolment in AT_THE_HANDSHAKE {
        for (sender, detaches) in [(File::BLOCKS_FOR_A_WHILE, 0), (File::BLOCKS_LATER, 1)] {
            holds(Case {
                enrolment,
                sender,
                detaches,
                queue_limit: 0,
                messages: 3,
                ..Case::default()
            });
        }
    }
}

#[test]
fn accepted_and_made_not_to_block_only_then() {
    for reads in READS {
        for detaches in [0, 1] {
            holds(Case {
                reads,
                reader: File::BLOCKS_AT_FIRST,
                detaches,
                queue_limit: 0,
                messages: 3,
                ..Case::default()
            });
        }
    }
}

#[test]
fn accepted_and_blocks() {
    for (half_close, detaches) in [(HalfClose::Never, 1), (HalfClose::AtRest, 0)] {
        let case = Case {
            reader: File::BLOCKS,
            half_close,
            detaches,
            ..Case::default()
        };
        assert!(!keeps_all(Rules::all(), case), "it blocks for good");
    }
}

/// That a stream ends while a call of TCP's own begins is in `open.rs`.
#[test]
fn adopted() {
    let files = [
        (File::BLOCKS_AT_FIRST, File::NEVER_BLOCKS),
        (File::NEVER_BLOCKS, File::BLOCKS_AT_FIRST),
    ];
    for reads in READS {
        for enrolment in ADOPTED {
            for (reader, sender) in files {
                let mut case = Case {
                    reads,
                    enrolment,
                    reader,
                    sender,
                    messages: 3,
                    waits_for_answer: true,
                    ..Case::default()
                };
                holds(case);
                case.waits_for_answer = false;
                holds_under(Rules::all().with(Rule::NoCallBegun), case);
            }
        }
    }
}

#[test]
fn detached_while_somebody_is_adopted() {
    for enrolment in ADOPTED {
        holds(Case {
            enrolment,
            detaches: 1,
            messages: 3,
            waits_for_answer: true,
            ..Case::default()
        });
    }
}

/// Sweeps that outlive their drain, and ends that come to block, with the rule that the code lacks.
#[test]
fn with_the_rule_that_the_code_lacks() {
    let rules = Rules::all().with(Rule::InsideLast);
    for enrolment in AT_THE_HANDSHAKE.into_iter().chain(ADOPTED) {
        let base = Case {
            reads: Reads::LevelTriggered,
            enrolment,
            queue_limit: 0,
            messages: 2,
            ..Case::default()
        };
        for case in [
            Case {
                retires: true,
                sweep_outlives: true,
                ..base
            },
            Case {
                detaches: 2,
                sweep_outlives: true,
                ..base
            },
            Case {
                reader: File::BLOCKS_LATER,
                sender: File::BLOCKS_FOR_A_WHILE,
                ..base
            },
        ] {
            keeps_all(rules, case);
        }
    }
}
