//! What enrolled sockets send can be captured: all of it that is wanted, and what found no room is counted.

mod common;

use std::time::Duration;

use common::{Bed, Result};
use datapath::abi::CAPTURE_MAX;
use datapath::capture::{self, Capture, Captured};
use datapath::socket::Options;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{pair, read_all, stream};
use testbed::{Cgroup, Node, kernel_test};

fn poll(capture: &Capture<'_>) -> Result<Vec<Captured>> {
    Ok(capture.poll(Duration::ZERO)?)
}

fn bytes(captured: &[Captured]) -> Vec<u8> {
    captured.iter().flat_map(|(_, data)| data.clone()).collect()
}

fn expected(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

kernel_test! {
    fn what_is_not_wanted_is_not_captured(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, _b) = pair(&client, &web, web.ip())?;
        stream::send(&a, 1, 500, 500)?;
        let capture = Capture::open(&bed)?;
        assert!(poll(&capture)?.is_empty(), "nothing until it is asked for");
        capture::set(&bed, CAPTURE_MAX)?;
        stream::send(&a, 2, 500, 500)?;
        let found = poll(&capture)?;
        assert_eq!(bytes(&found), expected(2, 500));
        assert_eq!((found[0].0.position, found[0].0.redirected, found[0].0.is_client), (500, 1, 1));
        let (c, d) = pair(&client, &web, web.ip())?;
        capture.ignore(found[0].0.own)?;
        stream::send(&a, 3, 500, 500)?;
        stream::send(&d, 4, 500, 500)?;
        let found = poll(&capture)?;
        assert_eq!((found.len(), bytes(&found)), (1, expected(4, 500)));
        let (rest, lost) = capture.finish()?;
        assert_eq!((rest.len(), lost.pieces), (0, 0));
        stream::send(&c, 5, 500, 500)?;
        capture::set(&bed, 0)?;
        Ok(())
    }

    fn both_paths_are_captured(cgroup: &Cgroup) -> Result {
        let bed = Bed::with(cgroup, Options { queue_limit: 1_000, ..Options::default() })?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let capture = Capture::open(&bed)?;
        capture::set(&bed, CAPTURE_MAX)?;
        stream::send(&a, 1, 3_000, 1_500)?;
        let (found, _) = capture.finish()?;
        assert_eq!(bytes(&found), expected(1, 3_000));
        let ways: Vec<_> = found.iter().map(|(piece, _)| (piece.position, piece.redirected)).collect();
        assert_eq!(ways, [(0, 1), (1_500, 0)]);
        read_all(&b, &mut [0; 3_000])?;
        Ok(())
    }

    fn long_messages_of_many_elements_are_whole(cgroup: &Cgroup) -> Result {
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, _b) = pair(&client, &web, web.ip())?;
        let capture = Capture::open(&bed)?;
        capture::set(&bed, CAPTURE_MAX)?;
        stream::send(&a, 1, 1_000_000, 250_000)?;
        let (found, lost) = capture.finish()?;
        assert_eq!(lost.pieces, 0);
        assert!(bytes(&found) == expected(1, 1_000_000));
        Ok(())
    }

    fn what_finds_no_room_is_counted_and_arrives(cgroup: &Cgroup) -> Result {
        const SENT: u64 = 24 << 20;
        let bed = Bed::on(cgroup)?;
        let node = Node::new()?;
        let (web, client) = (node.pod("web")?, node.pod("client")?);
        let (a, b) = pair(&client, &web, web.ip())?;
        let capture = Capture::open(&bed)?;
        capture::set(&bed, CAPTURE_MAX)?;
        stream::send(&a, 1, SENT, 100_000)?;
        stream::finish(&a)?;
        assert_eq!(stream::verify(&b, 1, 65_536)?, SENT);
        let (found, lost) = capture.finish()?;
        assert!(lost.pieces > 0);
        assert_eq!(bytes(&found).len() as u64 + lost.bytes, SENT);
        Ok(())
    }
}
