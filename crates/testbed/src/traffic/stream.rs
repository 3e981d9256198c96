//! One way: a long stream, checked byte by byte or by its hash.

use std::net::{Shutdown, TcpStream};
use std::ops::RangeInclusive;

use blake3::{Hash, Hasher};

use super::pattern::{Pattern, Sizes};
use super::{PEER, bounded, ends, read, write_all};
use crate::error::{Error, Result, Tried};

/// The sizes of single writes or reads, in bytes.
#[derive(Debug, Clone)]
pub enum Chunk {
    /// Always the same.
    Fixed(usize),
    /// Pseudo-random sizes, the same for the same seed.
    Random {
        /// Smallest and largest size.
        sizes: RangeInclusive<usize>,
        /// Which sequence of sizes.
        seed: u64,
    },
}

impl From<usize> for Chunk {
    fn from(size: usize) -> Self {
        Self::Fixed(size)
    }
}

impl Chunk {
    /// Pseudo-random sizes from 1 to `max`.
    #[must_use]
    pub fn up_to(max: usize, seed: u64) -> Self {
        let sizes = 1..=max;
        Self::Random { sizes, seed }
    }

    fn max(&self) -> usize {
        match self {
            Self::Fixed(size) => (*size).max(1),
            Self::Random { sizes, .. } => (*sizes.end()).max(1),
        }
    }

    /// The endless sequence of sizes, each at least 1.
    fn sizes(&self) -> impl FnMut() -> usize + use<> {
        let (low, span, seed) = match self {
            Self::Fixed(size) => ((*size).max(1), 1, 0),
            Self::Random { sizes, seed } => {
                let low = (*sizes.start()).max(1);
                (low, sizes.end().saturating_sub(low) + 1, *seed)
            }
        };
        let mut random = Sizes::new(seed);
        move || low + random.next(span) - 1
    }
}

/// What [`receive`] got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Number of bytes until the end of the stream.
    pub len: u64,
    /// Their hash.
    pub hash: Hash,
}

/// What a receiver must get when `len` bytes of `seed` were sent.
#[must_use]
pub fn expected(seed: u64, len: u64) -> Received {
    let (mut pattern, mut hasher, mut left) = (Pattern::new(seed), Hasher::new(), len);
    let mut buf = [0; 4096];
    while left > 0 {
        let n = piece(buf.len(), left);
        pattern.fill(&mut buf[..n]);
        hasher.update(&buf[..n]);
        left -= n as u64;
    }
    let hash = hasher.finalize();
    Received { len, hash }
}

/// Writes the first `len` bytes of the stream of `seed` in writes of the size `chunk`. Returns their hash.
///
/// The socket stays open for writing; see [`finish`].
///
/// # Errors
/// [`Error::Os`] when a write fails, or when the peer reads nothing for [`STALL`](super::STALL).
pub fn send(sock: &TcpStream, seed: u64, len: u64, chunk: impl Into<Chunk>) -> Result<Hash> {
    send_from(sock, &mut Pattern::new(seed), len, chunk)
}

/// As [`send`], going on where `pattern` stands.
///
/// # Errors
/// As [`send`].
pub fn send_from(
    sock: &TcpStream,
    pattern: &mut Pattern,
    len: u64,
    chunk: impl Into<Chunk>,
) -> Result<Hash> {
    let chunk = chunk.into();
    let tried = || format!("send on {}", ends(sock));
    bounded(sock).tried(PEER, tried)?;
    let (mut buf, mut next, mut hasher) = (vec![0; chunk.max()], chunk.sizes(), Hasher::new());
    let mut left = len;
    while left > 0 {
        let piece = &mut buf[..piece(next(), left)];
        pattern.fill(piece);
        hasher.update(piece);
        write_all(sock, piece).tried(PEER, tried)?;
        left -= piece.len() as u64;
    }
    Ok(hasher.finalize())
}

/// Ends the stream: the peer reads end of file, we can still read.
///
/// # Errors
/// [`Error::Os`] when the connection is gone.
pub fn finish(sock: &TcpStream) -> Result<()> {
    sock.shutdown(Shutdown::Write)
        .tried(PEER, || format!("shut down {}", ends(sock)))
}

/// Reads until the end of the stream in reads of at most the size `chunk`.
///
/// # Errors
/// [`Error::Os`] when a read fails, or when nothing comes for [`STALL`](super::STALL).
pub fn receive(sock: &TcpStream, chunk: impl Into<Chunk>) -> Result<Received> {
    let (mut len, mut hasher) = (0, Hasher::new());
    each_read(sock, &chunk.into(), |bytes| {
        len += bytes.len() as u64;
        hasher.update(bytes);
        Ok(())
    })?;
    let hash = hasher.finalize();
    Ok(Received { len, hash })
}

/// As [`receive`], but compares each byte with the stream of `seed`. Returns the number of bytes.
///
/// # Errors
/// As [`receive`], and [`Error::Stream`] with the place of the first wrong byte.
pub fn verify(sock: &TcpStream, seed: u64, chunk: impl Into<Chunk>) -> Result<u64> {
    let mut pattern = Pattern::new(seed);
    each_read(sock, &chunk.into(), |bytes| {
        let mut expected = pattern.clone();
        let Some(offset) = pattern.differs(bytes) else {
            return Ok(());
        };
        let at = usize::try_from(offset - expected.offset()).unwrap_or_default();
        let mut right = vec![0; bytes.len()];
        expected.fill(&mut right);
        let some = |bytes: &[u8]| format!("{:02x?}", &bytes[at..bytes.len().min(at + 8)]);
        Err(Error::Stream {
            offset,
            expected: some(&right),
            got: some(bytes),
        })
    })?;
    Ok(pattern.offset())
}

fn each_read(
    sock: &TcpStream,
    chunk: &Chunk,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let tried = || format!("receive on {}", ends(sock));
    bounded(sock).tried(PEER, tried)?;
    let (mut buf, mut next) = (vec![0; chunk.max()], chunk.sizes());
    loop {
        let size = next();
        match read(sock, &mut buf[..size]).tried(PEER, tried)? {
            0 => return Ok(()),
            n => take(&buf[..n])?,
        }
    }
}

/// The smaller of a chunk and what is left.
fn piece(chunk: usize, left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX).min(chunk)
}
