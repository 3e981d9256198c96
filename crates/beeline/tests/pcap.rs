//! `beeline trace --pcap` writes what connections send, as tcpdump reads it.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::{Beeline, SOON, output_of, pair, text};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use pcap_file::pcap::PcapReader;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use testbed::traffic::pattern::Pattern;
use testbed::traffic::{self, stream};
use testbed::{Cgroup, kernel_test, wait_for};

/// A running `beeline trace --pcap`.
struct Capture {
    child: Option<Child>,
    file: PathBuf,
    _dir: TempDir,
}

impl Capture {
    /// Captures when this returns.
    fn start(beeline: &Beeline, args: &[&str]) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("traffic.pcap");
        let child = beeline
            .command(&["trace", "--pcap", file.to_str().unwrap()])
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let maps = beeline.maps();
        wait_for("the capture", SOON, || {
            datapath::capture::is_on(&maps).unwrap()
        })
        .unwrap();
        Self {
            child: Some(child),
            file,
            _dir: dir,
        }
    }

    /// Ends it. What it said, and the packets.
    fn end(&mut self) -> (String, Vec<Packet>) {
        let child = self.child.take().unwrap();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        (text(&output), packets(&self.file))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

struct Packet {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    /// Of data, as it was sent.
    length: usize,
    data: Vec<u8>,
}

fn packets(file: &Path) -> Vec<Packet> {
    let mut reader = PcapReader::new(File::open(file).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Some(packet) = reader.next_packet() {
        packets.push(parse(&packet.unwrap()));
    }
    packets
}

fn parse(packet: &pcap_file::pcap::PcapPacket<'_>) -> Packet {
    // What was cut is missing, and has not to be read.
    let mut whole = packet.data.to_vec();
    whole.resize(packet.orig_len as usize, 0);
    let sliced = SlicedPacket::from_ip(&whole).unwrap();
    let Some(TransportSlice::Tcp(tcp)) = sliced.transport else {
        panic!("no TCP");
    };
    let Some(NetSlice::Ipv4(ip)) = sliced.net else {
        panic!("no IPv4");
    };
    assert!(!tcp.syn() && !tcp.fin() && tcp.ack());
    let head = whole.len() - tcp.payload().len();
    Packet {
        from: (ip.header().source_addr(), tcp.source_port()).into(),
        to: (ip.header().destination_addr(), tcp.destination_port()).into(),
        sequence: tcp.sequence_number(),
        acknowledged: tcp.acknowledgment_number(),
        length: tcp.payload().len(),
        data: packet.data[head..].to_vec(),
    }
}

/// The stream from one address to another: first sequence number, bytes. Nothing is missing or there twice.
fn stream_of(packets: &[Packet], from: SocketAddr, to: SocketAddr) -> (u32, Vec<u8>) {
    let own = packets
        .iter()
        .filter(|packet| packet.from == from && packet.to == to);
    let mut first = None;
    let mut bytes = Vec::new();
    for packet in own {
        let start = *first.get_or_insert(packet.sequence);
        assert_eq!(
            packet.sequence.wrapping_sub(start) as usize,
            bytes.len(),
            "in order"
        );
        assert_eq!(packet.data.len(), packet.length, "complete");
        bytes.extend(&packet.data);
    }
    (first.expect("there are packets"), bytes)
}

fn expected(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Pattern::new(seed).fill(&mut bytes);
    bytes
}

fn ends((client, server): &(TcpStream, TcpStream)) -> (SocketAddr, SocketAddr) {
    (client.local_addr().unwrap(), server.local_addr().unwrap())
}

/// What tcpdump makes of it; it finds no wrong checksum.
fn tcpdump(file: &Path) -> String {
    let output = output_of(Command::new("tcpdump").args(["-nvvSr"]).arg(file));
    let said = text(&output);
    assert!(
        output.status.success() && !said.contains("incorrect") && !said.contains("bad cksum"),
        "{said}"
    );
    said
}

kernel_test! {
    fn every_byte_is_there_with_the_sequence_numbers_of_the_handshake(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut capture = Capture::start(&beeline, &[]);
        let conn = pair();
        let (client, server) = ends(&conn);
        let reader = conn.1.try_clone().unwrap();
        let read = std::thread::spawn(move || traffic::read_all(&reader, &mut vec![0; 2_000_000]));
        for (seed, from) in [(1, &conn.0), (2, &conn.1)] {
            let length = if seed == 1 { 2_000_000 } else { 300_000 };
            stream::send(from, seed, length, stream::Chunk::up_to(70_000, seed)).unwrap();
        }
        read.join().unwrap().unwrap();
        let handshake = beeline.maps().conns()[0];
        let (said, packets) = capture.end();
        assert!(!said.contains("lost"), "{said}");
        let (first, bytes) = stream_of(&packets, client, server);
        assert_eq!(first, handshake.snd_nxt);
        assert!(bytes == expected(1, 2_000_000), "the client's bytes");
        let (first, bytes) = stream_of(&packets, server, client);
        assert_eq!(first, handshake.rcv_nxt);
        assert!(bytes == expected(2, 300_000), "the server's bytes");
        let last = packets.iter().rfind(|packet| packet.from == server).unwrap();
        assert_eq!(last.acknowledged, handshake.snd_nxt.wrapping_add(2_000_000));
        let begin = packets.iter().find(|packet| packet.from == client).unwrap();
        assert_eq!(begin.acknowledged, handshake.rcv_nxt, "nothing of the other direction was captured yet");
        let listed = tcpdump(&capture.file);
        assert_eq!(listed.matches("(correct)").count(), packets.len(), "{listed}");
        assert_eq!(fs::metadata(&capture.file).unwrap().mode() & 0o777, 0o600);
    }

    fn what_sendfile_sends_is_there_and_arrives(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut capture = Capture::start(&beeline, &[]);
        let conn = pair();
        let (client, server) = ends(&conn);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&expected(3, 200_000)).unwrap();
        file.rewind().unwrap();
        let mut sent = 0;
        wait_for("sendfile", SOON, || {
            sent += rustix::fs::sendfile(&conn.0, &file, None, 200_000 - sent).unwrap_or(0);
            sent == 200_000
        }).unwrap();
        let mut arrived = vec![0; 200_000];
        traffic::read_all(&conn.1, &mut arrived).unwrap();
        assert!(arrived == expected(3, 200_000), "what arrived");
        let (_, packets) = capture.end();
        assert!(stream_of(&packets, client, server).1 == expected(3, 200_000), "what was captured");
    }

    fn only_so_many_bytes_of_a_message_are_written_but_all_are_counted(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let mut capture = Capture::start(&beeline, &["--snap", "100"]);
        let conn = pair();
        let (client, server) = ends(&conn);
        stream::send(&conn.0, 1, 300_000, 100_000).unwrap();
        let (_, packets) = capture.end();
        let mut lengths = BTreeMap::new();
        for packet in packets.iter().filter(|packet| (packet.from, packet.to) == (client, server)) {
            assert!(packet.data.len() <= 100);
            lengths.insert(packet.sequence, packet.length);
        }
        assert_eq!(lengths.values().sum::<usize>(), 300_000);
        assert!(tcpdump(&capture.file).contains("length"));
    }

    fn only_what_is_asked_for_is_written_and_the_past_is_not(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let _agent = beeline.agent();
        let (wanted, other) = (pair(), pair());
        let (client, server) = ends(&wanted);
        stream::send(&wanted.0, 1, 1_000, 1_000).unwrap();
        let port = server.port().to_string();
        let mut capture = Capture::start(&beeline, &["--port", &port, "--process", "pcap"]);
        for _ in 0..50 {
            stream::send(&other.0, 2, 1_000, 1_000).unwrap();
            stream::send(&wanted.0, 3, 100, 100).unwrap();
        }
        let (_, packets) = capture.end();
        assert!(packets.iter().all(|packet| (packet.from, packet.to) == (client, server)));
        let (_, bytes) = stream_of(&packets, client, server);
        assert_eq!(bytes, expected(3, 100).repeat(50));
    }

    fn one_at_a_time_and_off_when_it_ends_or_is_killed(cgroup: &Cgroup) {
        let beeline = Beeline::new(cgroup);
        let agent = beeline.agent();
        let maps = beeline.maps();
        let off = || maps.settings().unwrap().capture == 0 && !datapath::capture::is_on(&maps).unwrap();
        assert!(off());
        let mut capture = Capture::start(&beeline, &[]);
        let file = capture.file.to_str().unwrap().to_owned();
        let said = beeline.fails(&["trace", "--pcap", &file]);
        assert!(said.contains("somebody captures already"), "{said}");
        capture.end();
        wait_for("the end", SOON, off).unwrap();
        let said = beeline.fails(&["trace", "--pcap", &file]);
        assert!(said.contains("exists"), "{said}");
        drop(Capture::start(&beeline, &[]));
        wait_for("the end of one that was killed", SOON, off).unwrap();
        let mut capture = Capture::start(&beeline, &[]);
        agent.kill();
        let child = capture.child.take().unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(text(&output).contains("the agent stopped"), "{}", text(&output));
        assert!(off());
    }
}
