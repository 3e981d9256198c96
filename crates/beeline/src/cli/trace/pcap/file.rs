//! The file that packets go to, in the format of libpcap: <https://www.tcpdump.org/manpages/pcap-savefile.5.html>.

use std::cell::RefCell;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use datapath::abi::Piece;
use datapath::socket;
use pcap_file::pcap::{PcapHeader, PcapPacket, PcapWriter};
use pcap_file::{DataLink, TsResolution};

use super::conversations::Conversation;
use super::packet::{MOST_DATA, Segment};

/// As a name: standard output.
const STDOUT: &str = "-";

/// No link layer: IPv4 or IPv6, as the first byte says (LINKTYPE_RAW).
const LINK: DataLink = DataLink::RAW;

/// A file that packets are written to.
pub(super) struct File {
    pcap: PcapWriter<Out>,
    out: Out,
    /// Most bytes of a message that were captured.
    snap: u32,
    /// The time of day when the monotonic clock was 0.
    epoch: Duration,
    /// Written so far.
    pub packets: u64,
    /// Bytes of data in these.
    pub bytes: u64,
}

impl File {
    /// Makes a file that nobody but its owner can read.
    ///
    /// # Errors
    /// When there is one of that name.
    pub(super) fn create(path: &Path, snap: u32) -> Result<Self> {
        let header = PcapHeader {
            snaplen: u16::MAX.into(),
            datalink: LINK,
            ts_resolution: TsResolution::NanoSecond,
            ..PcapHeader::default()
        };
        let out = Out::open(path)?;
        let pcap = PcapWriter::with_header(out.clone(), header)
            .with_context(|| format!("cannot write {}", path.display()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self {
            pcap,
            out,
            snap,
            epoch: now.saturating_sub(Duration::from_nanos(socket::monotonic_ns())),
            packets: 0,
            bytes: 0,
        })
    }

    /// Adds a part of a message.
    pub(super) fn put(&mut self, of: &mut Conversation, piece: &Piece, data: &[u8]) -> Result<()> {
        let captured = piece.offset + piece.length;
        let is_last = captured == piece.size.min(self.snap);
        let mut missing = if is_last {
            (piece.size - captured) as usize
        } else {
            0
        };
        let (own, peer) = if piece.is_client == 0 { (1, 0) } else { (0, 1) };
        let addresses = [of.client, of.server];
        let mut position = piece.position + u64::from(piece.offset);
        let mut data = data;
        loop {
            let cut = missing.min(MOST_DATA - data.len());
            missing -= cut;
            let segment = Segment {
                from: addresses[own],
                to: addresses[peer],
                // Both go round after 4 GiB.
                sequence: piece.own.snd_nxt.wrapping_add(position as u32),
                acknowledged: piece.own.rcv_nxt.wrapping_add(of.sent[peer] as u32),
                push: is_last && missing == 0,
                data,
                cut,
            };
            self.write(piece.at_ns, &segment)?;
            position += (data.len() + cut) as u64;
            data = &[];
            if missing == 0 {
                break;
            }
        }
        of.sent[own] = position;
        Ok(())
    }

    /// Lets readers see what was put.
    pub(super) fn flush(&mut self) -> Result<()> {
        self.out.flush().context("cannot write packets")
    }

    fn write(&mut self, at_ns: u64, segment: &Segment<'_>) -> Result<()> {
        let (length, bytes) = segment.packet()?;
        let at = self.epoch + Duration::from_nanos(at_ns);
        let packet = PcapPacket::new(at, length, &bytes);
        self.pcap
            .write_packet(&packet)
            .context("cannot write a packet")?;
        self.packets += 1;
        self.bytes += segment.data.len() as u64;
        Ok(())
    }
}

/// What a [`PcapWriter`] writes to, for it does not flush.
#[derive(Clone)]
struct Out(Rc<RefCell<BufWriter<Box<dyn Write>>>>);

impl Out {
    fn open(path: &Path) -> Result<Self> {
        let out: Box<dyn Write> = if path == Path::new(STDOUT) {
            Box::new(io::stdout())
        } else {
            let mut options = fs::File::options();
            let file = options.write(true).create_new(true).mode(0o600).open(path);
            Box::new(file.with_context(|| format!("cannot create {}", path.display()))?)
        };
        Ok(Self(Rc::new(RefCell::new(BufWriter::new(out)))))
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}
