//! All the ways into a socket.

use std::mem;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use super::outcome::Outcome;
use super::program::SendBy;
use super::sys::{self, own, sys};
use super::uring;

/// Makes one call that sends.
pub fn send(fd: RawFd, by: SendBy, bytes: &[u8], flags: i32) -> Outcome {
    match by {
        SendBy::Send => from(sys!(libc::send(
            fd,
            bytes.as_ptr().cast(),
            bytes.len(),
            flags
        ))),
        SendBy::Write => from(sys!(libc::write(fd, bytes.as_ptr().cast(), bytes.len()))),
        SendBy::Writev => {
            let pieces = pieces(bytes);
            from(sys!(libc::writev(fd, pieces.as_ptr(), 3)))
        }
        SendBy::Pwritev2 => {
            let pieces = pieces(bytes);
            from(sys!(libc::pwritev2(
                fd,
                pieces.as_ptr(),
                3,
                NO_OFFSET,
                no_wait(flags)
            )))
        }
        SendBy::Sendmsg => {
            let mut pieces = pieces(bytes);
            let message = message(&mut pieces);
            from(sys!(libc::sendmsg(fd, &raw const message, flags)))
        }
        SendBy::Sendmmsg => several(fd, bytes, flags),
        SendBy::Sendfile => from_file(fd, bytes),
        SendBy::Splice | SendBy::Vmsplice => through_pipe(fd, by, bytes, flags),
        SendBy::IoUring => uring::send(fd, bytes, flags),
    }
}

/// Where `preadv2` and `pwritev2` are to read and write: as `readv` and `writev` do.
pub const NO_OFFSET: libc::off_t = -1;

/// The flags of these calls.
pub fn no_wait(flags: i32) -> i32 {
    if flags & libc::MSG_DONTWAIT != 0 {
        libc::RWF_NOWAIT
    } else {
        0
    }
}

pub fn from(ret: isize) -> Outcome {
    Outcome::from(ret as i64)
}

/// Three parts; the first may be empty.
pub fn pieces(bytes: &[u8]) -> [libc::iovec; 3] {
    let (first, rest) = bytes.split_at(bytes.len() / 3);
    let (second, third) = rest.split_at(rest.len() / 2);
    [first, second, third].map(|piece| libc::iovec {
        iov_base: piece.as_ptr().cast_mut().cast(),
        iov_len: piece.len(),
    })
}

/// A message over those parts, without address and control data.
pub fn message(pieces: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: all zero is a valid, empty message.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = pieces.as_mut_ptr();
    message.msg_iovlen = pieces.len();
    message
}

/// A message for each part.
pub fn messages(pieces: &mut [libc::iovec]) -> Vec<libc::mmsghdr> {
    let one = |piece| libc::mmsghdr {
        msg_hdr: message(piece),
        msg_len: 0,
    };
    pieces.chunks_mut(1).map(one).collect()
}

/// The lengths of those messages that a call made or took.
pub fn lengths(messages: &[libc::mmsghdr], done: i32) -> Vec<i64> {
    let done = messages.iter().take(done.max(0) as usize);
    done.map(|message| message.msg_len.into()).collect()
}

/// `sendmmsg` of three messages.
fn several(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
    let mut pieces = pieces(bytes);
    let mut messages = messages(&mut pieces);
    let ret = sys!(libc::sendmmsg(fd, messages.as_mut_ptr(), 3, flags));
    let mut outcome = Outcome::from(ret);
    outcome.more = lengths(&messages, ret);
    outcome
}

fn from_file(fd: RawFd, bytes: &[u8]) -> Outcome {
    let file = own(sys!(libc::memfd_create(c"file".as_ptr(), 0)));
    sys::write(&file, bytes);
    let mut offset = 0;
    from(sys!(libc::sendfile(
        fd,
        file.as_raw_fd(),
        &raw mut offset,
        bytes.len()
    )))
}

/// `splice` from a pipe that was written to, or that borrows the pages.
fn through_pipe(fd: RawFd, by: SendBy, bytes: &[u8], flags: i32) -> Outcome {
    let (out, into) = sys::pipe();
    if by == SendBy::Splice {
        sys::write(&into, bytes);
    } else {
        let piece = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let lent = from(sys!(libc::vmsplice(
            into.as_raw_fd(),
            &raw const piece,
            1,
            0
        )));
        assert_eq!(lent.ret, bytes.len() as i64, "vmsplice");
    }
    let mut how = 0;
    if flags & libc::MSG_MORE != 0 {
        how |= libc::SPLICE_F_MORE;
    }
    if flags & libc::MSG_DONTWAIT != 0 {
        how |= libc::SPLICE_F_NONBLOCK;
    }
    let none = ptr::null_mut();
    from(sys!(libc::splice(
        out.as_raw_fd(),
        none,
        fd,
        none,
        bytes.len(),
        how
    )))
}
