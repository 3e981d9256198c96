//! A reading thread: `tcp_bpf_recvmsg` (net/ipv4/tcp_bpf.c) and `tcp_recvmsg` (net/ipv4/tcp.c),
//! Linux 6.18, each step as far as it goes under one lock.

use crate::case::{Case, Reads};
use crate::state::{Byte, End, Fault, Reader, State};

/// The reading thread goes on, if it can.
pub(crate) fn go_on(case: &Case, state: &mut State, who: usize) -> bool {
    match state.readers[who] {
        Reader::Outside if case.reads.blocks() => call(case, state, who),
        Reader::Outside if case.reads == Reads::LevelTriggered && is_readable(state) => {
            call(case, state, who);
        }
        Reader::Outside if case.reads == Reads::EdgeTriggered && state.edge => {
            epoll_wait(state, who)
        }
        Reader::Told => call(case, state, who),
        Reader::InBpf => in_bpf(case, state, who),
        Reader::InNative => in_native(case, state, who, 0),
        Reader::SleepsInBpf { woken: true } => woken_in_bpf(case, state, who),
        Reader::SleepsInNative { woken: true, got } => in_native(case, state, who, got),
        _ => return false,
    }
    true
}

fn is_readable(state: &State) -> bool {
    !state.psock_queue.is_empty() || state.is_native_readable() || state.end.is_rcv_shutdown()
}

/// `epoll_wait` reports the edge. A program that is busy elsewhere may get several before it reads.
pub(crate) fn epoll_wait(state: &mut State, who: usize) {
    state.edge = false;
    state.told_end |= state.end.is_rcv_shutdown();
    state.readers[who] = Reader::Told;
}

/// The part of `tcp_bpf_recvmsg` before the lock; without a psock the call is `tcp_recvmsg`.
fn call(_: &Case, state: &mut State, who: usize) {
    let native =
        !state.enrolment.socks || (state.is_native_readable() && state.psock_queue.is_empty());
    state.readers[who] = if native {
        Reader::InNative
    } else {
        Reader::InBpf
    };
}

fn in_bpf(case: &Case, state: &mut State, who: usize) {
    if !state.psock_queue.is_empty() {
        let bytes = take(&mut state.psock_queue, case.buffer);
        returns(case, state, who, &bytes);
    } else if state.end.is_rcv_shutdown() || (case.reads.blocks() && state.is_native_readable()) {
        state.readers[who] = Reader::InNative;
    } else if case.reads.blocks() {
        state.readers[who] = Reader::SleepsInBpf { woken: false };
    } else {
        state.readers[who] = Reader::Outside; // EAGAIN
    }
}

/// `tcp_msg_wait_data` sleeps once; without data then, the call fails.
fn woken_in_bpf(case: &Case, state: &mut State, who: usize) {
    if !state.psock_queue.is_empty() {
        in_bpf(case, state, who);
    } else if state.is_native_readable() {
        state.readers[who] = Reader::InNative;
    } else {
        state.readers[who] = Reader::Outside; // EAGAIN
        // The one that docs/semantics.md lists: EAGAIN once, before ECONNRESET.
        if state.end != End::Reset {
            state.fault = Some(Fault::CallFailed);
        }
    }
}

fn in_native(case: &Case, state: &mut State, who: usize, got: u8) {
    let bytes = take(&mut state.receive_queue, case.buffer - got);
    let got = got + u8::try_from(bytes.len()).expect("a small buffer");
    let wants_more = case.reads == Reads::WaitAll && got < case.buffer;
    if got > 0 && (!wants_more || state.end.is_rcv_shutdown()) {
        returns(case, state, who, &bytes);
        return;
    }
    copy(state, &bytes);
    if state.end.is_rcv_shutdown() {
        ends(state, who);
    } else if case.reads.blocks() {
        state.readers[who] = Reader::SleepsInNative { woken: false, got };
    } else {
        state.readers[who] = Reader::Outside; // EAGAIN
    }
}

fn take(queue: &mut Vec<Byte>, most: u8) -> Vec<Byte> {
    let count = queue.len().min(usize::from(most));
    queue.drain(..count).collect()
}

fn copy(state: &mut State, bytes: &[Byte]) {
    for byte in bytes {
        if *byte != state.read {
            state.fault = Some(Fault::OutOfOrder);
        }
        state.read += 1;
    }
}

/// The call returns these bytes.
fn returns(case: &Case, state: &mut State, who: usize, bytes: &[Byte]) {
    copy(state, bytes);
    let is_full = bytes.len() == usize::from(case.buffer);
    let goes_on = case.reads == Reads::EdgeTriggered && (is_full || state.told_end);
    state.readers[who] = if goes_on {
        Reader::Told
    } else {
        Reader::Outside
    };
}

/// The call returns end of file, or the error of a reset.
fn ends(state: &mut State, who: usize) {
    if state.end == End::Arrived {
        state.end = End::Read;
    }
    if state.end == End::Read && state.read < state.sent {
        state.fault = Some(Fault::Lost);
    }
    state.readers[who] = Reader::Done;
}
