//! Invariants 1 and 9: starting, stopping, killing, replacing and detaching lose no byte, and the
//! agent is not in the data path.

mod common;

use std::thread;
use std::time::{Duration, Instant};

use common::load::{Load, exchange};
use common::{Beeline, SOON, pair, text};
use datapath::abi::ABI;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

/// What one [`exchange`] of the tests moves each way.
const BYTES: u64 = 300_000;

fn redirected(beeline: &Beeline) -> u64 {
    beeline.status()["work"]["redirected_bytes"]
        .as_u64()
        .expect("a number")
}

fn sends_on_the_kernel_path(beeline: &Beeline) -> u64 {
    beeline.status()["work"]["kernel_bytes"]
        .as_u64()
        .expect("a number")
}

kernel_test! {
    fn a_stopped_agent_leaves_the_datapath_working(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let load = Load::start();
        assert!(agent.terminate(), "SIGTERM is an orderly end");
        let status = beeline.status();
        assert_eq!((&status["on"], status["agent"].is_null()), (&true.into(), true), "{status}");
        load.moves(50 << 20);
        exchange(BYTES);
        let sent = load.finish() + 2 * BYTES;
        wait_for("the totals", SOON, || redirected(&beeline) == sent).expect("all was redirected");
        assert_eq!(sends_on_the_kernel_path(&beeline), 0);
    }

    fn kill_9_and_a_new_agent_under_load_lose_nothing(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let mut agent = beeline.agent();
        let load = Load::start();
        for _ in 0..5 {
            agent.kill();
            load.moves(10 << 20);
            agent = beeline.agent();
            assert!(agent.said.contains("took over"), "{}", agent.said);
            load.moves(10 << 20);
            exchange(BYTES);
        }
        let sent = load.finish() + 5 * 2 * BYTES;
        wait_for("the totals", SOON, || redirected(&beeline) == sent).expect("all was redirected");
        assert_eq!(beeline.status()["agent"]["pid"], agent.pid());
    }

    fn taking_over_replaces_the_programs(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        beeline.agent().kill();
        let before = attached_program(&beeline);
        let _agent = beeline.agent();
        assert_ne!(attached_program(&beeline), before, "the link runs the new agent's program");
    }

    fn detach_under_load_moves_every_stream_to_plain_tcp(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let load = Load::start();
        let out = beeline.json(&["detach", "--json"]);
        assert_eq!(out["detached"], true, "{out}");
        assert_eq!(out["released_sockets"], 8, "{out}");
        assert!(beeline.is_gone(), "no pin and no file is left");
        load.moves(50 << 20);
        exchange(BYTES);
        load.finish();
        drop(agent);
    }

    fn detach_and_attach_in_turns_under_load(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let early = Load::start();
        for _ in 0..5 {
            let agent = beeline.agent();
            let load = Load::start();
            beeline.ok(&["detach"]);
            drop(agent);
            load.moves(10 << 20);
            load.finish();
        }
        early.finish();
    }

    fn readers_that_sleep_in_recv_do_not_hold_up_a_detach(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        let reader = thread::spawn(move || stream::verify(&server, 3, 1 << 16).unwrap());
        stream::send(&client, 3, BYTES, 1000).unwrap();
        wait_for("the redirect", SOON, || redirected(&beeline) == BYTES).unwrap();
        beeline.ok(&["detach", "--timeout", "10s"]);
        // The same stream goes on over plain TCP, and wakes the reader that slept meanwhile.
        let mut pattern = traffic::pattern::Pattern::new(3);
        pattern.fill(&mut vec![0; usize::try_from(BYTES).unwrap()]);
        stream::send_from(&client, &mut pattern, BYTES, 1000).unwrap();
        stream::finish(&client).unwrap();
        assert_eq!(reader.join().unwrap(), 2 * BYTES);
    }

    fn a_reader_that_does_not_read_holds_up_a_detach_and_loses_nothing(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        stream::send(&client, 4, BYTES, 1000).unwrap();
        let said = beeline.fails(&["detach", "--timeout", "300ms"]);
        let port = format!(":{}", server.local_addr().unwrap().port());
        assert!(said.contains("has not read") && said.contains(&port), "{said}");
        assert_eq!(beeline.status()["mode"], "detaching");
        let mut pattern = traffic::pattern::Pattern::new(4);
        pattern.fill(&mut vec![0; usize::try_from(BYTES).unwrap()]);
        // Behind what waits, over the kernel path; the reader wakes up late and gets all in order.
        stream::send_from(&client, &mut pattern, 20_000, 1000).unwrap();
        stream::finish(&client).unwrap();
        assert_eq!(stream::verify(&server, 4, 999).unwrap(), BYTES + 20_000);
        beeline.ok(&["detach"]);
        assert!(beeline.is_gone());
    }

    fn an_interrupted_detach_can_be_taken_back(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let (client, server) = pair();
        stream::send(&client, 5, BYTES, 1000).unwrap();
        beeline.fails(&["detach", "--timeout", "100ms"]);
        drop(agent);
        let _agent = beeline.agent();
        assert_eq!(beeline.status()["on"], true);
        exchange(BYTES);
        wait_for("the redirect", SOON, || redirected(&beeline) == 3 * BYTES).unwrap();
        stream::finish(&client).unwrap();
        assert_eq!(stream::verify(&server, 5, 4096).unwrap(), BYTES);
    }

    fn an_interrupted_start_does_not_break_the_next(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        for missing in ["ends", "totals", "settings"] {
            beeline.agent().kill();
            std::fs::remove_file(beeline.pins().link()).unwrap();
            std::fs::remove_file(beeline.pins().map(missing)).unwrap();
            let agent = beeline.agent();
            assert!(agent.said.contains("loaded"), "{}", agent.said);
            exchange(BYTES);
            wait_for("the redirect", SOON, || redirected(&beeline) == 2 * BYTES).unwrap();
            beeline.ok(&["detach"]);
            drop(agent);
        }
    }

    fn a_second_agent_is_refused_and_leaves_the_first_alone(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let said = beeline.fails(&["run", "--cgroup", &beeline.cgroup]);
        assert!(said.contains(&agent.pid().to_string()) && said.contains("stop it"), "{said}");
        exchange(BYTES);
        wait_for("the redirect", SOON, || redirected(&beeline) == 2 * BYTES).unwrap();
        assert_eq!(beeline.status()["agent"]["pid"], agent.pid());
    }

    fn a_datapath_with_another_layout_is_refused_and_left_alone(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let load = Load::start();
        let maps = beeline.maps();
        agent.kill();
        maps.change(|settings| settings.abi = ABI + 1).unwrap();
        for command in [&["run", "--cgroup", &beeline.cgroup][..], &["detach"], &["conns"]] {
            let said = beeline.fails(command);
            assert!(said.contains("layout") && said.contains("beeline detach"), "{said}");
        }
        load.moves(10 << 20);
        maps.change(|settings| settings.abi = ABI).unwrap();
        load.finish();
    }

    fn detach_without_a_datapath_says_so(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let said = beeline.fails(&["detach"]);
        assert!(said.contains("not loaded") && said.contains("beeline run"), "{said}");
        assert!(beeline.is_gone(), "nothing was left by asking");
    }

    fn detach_is_quick_beside_a_thread_that_never_rests(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        exchange(BYTES);
        let until = Instant::now() + Duration::from_secs(8);
        let busy = thread::spawn(move || while Instant::now() < until { std::hint::spin_loop() });
        let output = beeline.run(&["detach", "--timeout", "6s"]);
        assert!(output.status.success(), "{}", text(&output));
        assert!(!busy.is_finished(), "the thread was busy all the time");
    }

    fn a_sender_that_waits_for_room_does_not_hold_up_others(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (client, server) = pair();
        // More than the queue limit and all buffers.
        const MUCH: u64 = 64 << 20;
        let sender = thread::spawn(move || {
            let (mut pattern, mut buf) = (traffic::pattern::Pattern::new(6), vec![0; 1 << 20]);
            for _ in 0..MUCH >> 20 {
                pattern.fill(&mut buf);
                traffic::write_all(&client, &buf).unwrap();
            }
        });
        wait_for("the queue to be full", SOON, || {
            beeline.status()["work"]["reasons"]["queue_full"] == 1
        }).unwrap();
        exchange(BYTES);
        // Long enough to see every thread of a busy host at rest.
        let said = beeline.fails(&["detach", "--timeout", "5s"]);
        assert_eq!(said.lines().filter(|line| line.contains("<-")).count(), 1, "{said}");
        assert_eq!(stream::verify(&server, 6, 1 << 16).unwrap(), MUCH);
        sender.join().unwrap();
        beeline.ok(&["detach"]);
    }
}

fn attached_program(beeline: &Beeline) -> u32 {
    datapath::attach::attached_program(&beeline.pins())
        .unwrap()
        .expect("it is attached")
}
