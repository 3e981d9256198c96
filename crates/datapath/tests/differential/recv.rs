//! All the ways out of a socket.

use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

use super::outcome::Outcome;
use super::program::RecvBy;
use super::send::{NO_OFFSET, from, lengths, message, messages, no_wait, pieces};
use super::sys::{self, sys};
use super::uring;

/// Makes one call that receives.
pub fn recv(fd: RawFd, by: RecvBy, len: usize, flags: i32) -> Outcome {
    // A value that no byte overwrites shows what a call did not touch.
    let mut bytes = vec![0xee_u8; len];
    let at = bytes.as_mut_ptr().cast();
    let outcome = match by {
        RecvBy::Recv => from(sys!(libc::recv(fd, at, len, flags))),
        RecvBy::Read => from(sys!(libc::read(fd, at, len))),
        RecvBy::Readv => {
            let pieces = pieces(&bytes);
            from(sys!(libc::readv(fd, pieces.as_ptr(), 3)))
        }
        RecvBy::Preadv2 => {
            let pieces = pieces(&bytes);
            from(sys!(libc::preadv2(
                fd,
                pieces.as_ptr(),
                3,
                NO_OFFSET,
                no_wait(flags)
            )))
        }
        RecvBy::Recvmsg => with_control(fd, &bytes, flags),
        RecvBy::Recvmmsg => return several(fd, &bytes, flags),
        RecvBy::Splice => return through_pipe(fd, len, flags),
        RecvBy::IoUring => uring::recv(fd, &mut bytes, flags),
        RecvBy::IoUringMultishot => return uring::recv_multishot(fd, len),
    };
    let got = usize::try_from(outcome.ret).unwrap_or(0).min(len);
    outcome.with(&bytes[..got])
}

/// `recvmsg`, with the message flags and every control message.
fn with_control(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
    let mut pieces = pieces(bytes);
    let mut control = [0_u64; 32];
    let mut message = message(&mut pieces);
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    let mut outcome = from(sys!(libc::recvmsg(fd, &raw mut message, flags)));
    if outcome.ret >= 0 {
        outcome.more = vec![message.msg_flags.into()];
        outcome.more.extend(control_messages(&message));
    }
    outcome
}

/// Level, type and first integer of each.
///
/// NORMALISED: what the clock says.
fn control_messages(message: &libc::msghdr) -> Vec<i64> {
    let mut found = Vec::new();
    let mut at = sys!(libc::CMSG_FIRSTHDR(message));
    while !at.is_null() {
        // SAFETY: the kernel wrote a header there, and at least an integer behind it.
        let (header, value) = unsafe { (*at, libc::CMSG_DATA(at).cast::<i32>().read_unaligned()) };
        let is_time =
            (header.cmsg_level, header.cmsg_type) == (libc::SOL_SOCKET, libc::SCM_TIMESTAMP);
        let value = if is_time { 0 } else { value };
        found.extend([header.cmsg_level, header.cmsg_type, value].map(i64::from));
        at = sys!(libc::CMSG_NXTHDR(message, at));
    }
    found
}

/// `recvmmsg` of up to three messages, which waits for the first only.
fn several(fd: RawFd, bytes: &[u8], flags: i32) -> Outcome {
    let mut pieces = pieces(bytes);
    let mut messages = messages(&mut pieces);
    let flags = flags | libc::MSG_WAITFORONE;
    let ret = sys!(libc::recvmmsg(
        fd,
        messages.as_mut_ptr(),
        3,
        flags,
        ptr::null_mut()
    ));
    let mut got = Vec::new();
    for message in messages.iter().take(ret.max(0) as usize) {
        // SAFETY: the part is one of `bytes`, and that long at least.
        let piece = unsafe { *message.msg_hdr.msg_iov };
        let len = (message.msg_len as usize).min(piece.iov_len);
        // SAFETY: as above.
        got.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.iov_base.cast(), len) });
    }
    let mut outcome = Outcome::from(ret).with(&got);
    outcome.more = lengths(&messages, ret);
    outcome
}

fn through_pipe(fd: RawFd, len: usize, flags: i32) -> Outcome {
    let (out, into) = sys::pipe();
    let wait = if flags & libc::MSG_DONTWAIT != 0 {
        libc::SPLICE_F_NONBLOCK
    } else {
        0
    };
    let none = ptr::null_mut();
    let outcome = from(sys!(libc::splice(
        fd,
        none,
        into.as_raw_fd(),
        none,
        len,
        wait
    )));
    match usize::try_from(outcome.ret) {
        Ok(got) if got > 0 => outcome.with(&sys::read(&out, got)),
        _ => outcome,
    }
}

/// `SO_EE_ORIGIN_ZEROCOPY` (include/uapi/linux/errqueue.h).
const ZEROCOPY: u8 = 5;

/// What the error queue holds: one `sock_extended_err` after the other.
pub fn error_queue(fd: RawFd) -> Outcome {
    let mut all = Outcome::default();
    loop {
        let mut control = [0_u64; 32];
        let mut message = message(&mut []);
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        let got = from(sys!(libc::recvmsg(fd, &raw mut message, flags)));
        if got.ret < 0 {
            all.more.push(got.ret);
            return all;
        }
        let header = sys!(libc::CMSG_FIRSTHDR(&raw const message));
        if header.is_null() {
            continue;
        }
        // SAFETY: what the kernel puts into a TCP socket's error queue is this structure.
        let error: libc::sock_extended_err = unsafe {
            libc::CMSG_DATA(header)
                .cast::<libc::sock_extended_err>()
                .read_unaligned()
        };
        // Completions of several sends may come as one range (ee_info..=ee_data); whether bytes
        // were copied after all (ee_code) is the kernel's choice.
        if error.ee_origin == ZEROCOPY {
            all.ret += i64::from(error.ee_data.wrapping_sub(error.ee_info)) + 1;
        } else {
            all.more
                .extend([i64::from(error.ee_origin), i64::from(error.ee_errno)]);
        }
    }
}
