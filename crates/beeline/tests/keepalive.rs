//! The agent keeps connection tracking from forgetting connections whose data it does not see: it takes options
//! of their sockets for a moment, and gives them back.

mod common;

use std::net::TcpStream;
use std::thread;

use common::{Beeline, SOON, pair, talk};
use rustix::net::sockopt;
use testbed::{Cgroup, kernel_test, wait_for};

/// `SO_KEEPALIVE` and `TCP_KEEPIDLE`.
fn options(sock: &TcpStream) -> (bool, u64) {
    let idle = sockopt::tcp_keepidle(sock).expect("TCP has it");
    (
        sockopt::socket_keepalive(sock).expect("a socket has it"),
        idle.as_secs(),
    )
}

kernel_test! {
    fn options_are_taken_for_a_moment_by_an_agent_that_comes_back(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let pair = pair();
        talk(&pair);
        agent.kill();
        // What is redirected while there is no agent counts as well.
        talk(&pair);
        let (client, _server) = pair;
        let own = options(&client);
        let looks = client.try_clone().unwrap();
        let taken = thread::spawn(move || wait_for("the options to be taken", SOON, || options(&looks) == (true, 1)));
        let _agent = beeline.agent();
        taken.join().expect("it panicked").unwrap();
        wait_for("the options to be given back", SOON, || options(&client) == own).unwrap();
    }
}
