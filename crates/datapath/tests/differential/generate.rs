//! Random programs.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::program::{Call, Manner, Opt, Program, RecvBy, SendBy, Side, Step, WaitBy};

/// Programs of up to so many calls.
pub fn programs(longest: usize) -> impl Strategy<Value = Program> {
    ([manner(), manner()], vec(step(), 1..=longest))
        .prop_map(|(manners, steps)| Program { manners, steps })
}

/// Mostly such as are accelerated. Nagle's algorithm is rare, because it slows programs down a
/// thousandfold.
fn manner() -> impl Strategy<Value = Manner> {
    let bit = prop::bool::weighted;
    (bit(0.9), bit(0.15), bit(0.03)).prop_map(|(non_blocking, threads, nagle)| Manner {
        non_blocking,
        threads,
        nagle,
    })
}

fn step() -> impl Strategy<Value = Step> {
    (select(&Side::BOTH[..]), call()).prop_map(|(side, call)| Step { side, call })
}

/// Mostly bytes to and fro; what ends a connection or is known to differ is rare, so that programs
/// get far.
fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        400 => bytes(),
        20 => bytes().prop_map(|call| Call::Child(Box::new(call))),
        30 => any::<bool>().prop_map(|edge| Call::Epoll { edge }),
        20 => wait_by().prop_map(Call::Wait),
        40 => signal(),
        30 => option(),
        15 => select(vec![Call::Dup, Call::Pass, Call::ErrQueue, Call::Outq]),
        12 => stream(),
        8 => (0..3).prop_map(Call::Shutdown),
        5 => select(vec![Call::Close, Call::Abort, Call::Disconnect]),
    ]
}

fn bytes() -> impl Strategy<Value = Call> {
    let send = (send_by(), len(), send_flags()).prop_map(|(by, len, flags)| Call::Send {
        by,
        len,
        flags: flags & by.takes(),
    });
    let len_or_none = prop_oneof![200 => len(), 1 => Just(0)];
    let recv = (recv_by(), len_or_none, recv_flags()).prop_map(|(by, len, flags)| Call::Recv {
        by,
        len,
        flags: flags & by.takes(),
    });
    prop_oneof![send, recv]
}

fn len() -> impl Strategy<Value = usize> {
    prop_oneof![1_usize..=16, 1_usize..=1500, 1_usize..=16_384]
}

fn send_by() -> impl Strategy<Value = SendBy> {
    use SendBy::*;
    select(vec![
        Send, Write, Writev, Pwritev2, Sendmsg, Sendmmsg, Sendfile, Splice, Vmsplice, IoUring,
    ])
}

fn send_flags() -> impl Strategy<Value = i32> {
    prop_oneof![
        300 => Just(0),
        100 => Just(libc::MSG_DONTWAIT),
        50 => Just(libc::MSG_NOSIGNAL),
        4 => Just(libc::MSG_MORE),
        4 => Just(libc::MSG_OOB),
        4 => Just(libc::MSG_ZEROCOPY),
    ]
}

fn recv_by() -> impl Strategy<Value = RecvBy> {
    use RecvBy::*;
    prop_oneof![
        200 => select(vec![Recv, Read, Readv, Preadv2, Recvmsg, Recvmmsg]),
        30 => select(vec![IoUring, IoUringMultishot]),
        6 => Just(Splice),
    ]
}

fn recv_flags() -> impl Strategy<Value = i32> {
    prop_oneof![
        300 => Just(0),
        150 => Just(libc::MSG_DONTWAIT),
        100 => Just(libc::MSG_PEEK | libc::MSG_DONTWAIT),
        20 => Just(libc::MSG_PEEK),
        20 => Just(libc::MSG_WAITALL | libc::MSG_DONTWAIT),
        4 => Just(libc::MSG_WAITALL),
        4 => Just(libc::MSG_CMSG_CLOEXEC),
        4 => Just(libc::MSG_TRUNC),
        4 => Just(libc::MSG_OOB),
    ]
}

fn wait_by() -> impl Strategy<Value = WaitBy> {
    use WaitBy::*;
    select(vec![
        Poll,
        Ppoll,
        Select,
        Pselect,
        Epoll,
        EpollEdge,
        EpollOneshot,
        EpollExclusive,
    ])
}

fn signal() -> impl Strategy<Value = Call> {
    select(vec![
        Call::Signal { restart: true },
        Call::Signal { restart: false },
        Call::Stop,
    ])
}

fn option() -> impl Strategy<Value = Call> {
    let set = |opt, values: std::ops::RangeInclusive<i32>| {
        values.prop_map(move |value| Call::Set(opt, value)).boxed()
    };
    prop_oneof![
        3 => set(Opt::RcvLowat, 0..=1000),
        10 => set(Opt::RcvTimeo, 1..=10),
        10 => set(Opt::SndTimeo, 1..=10),
        20 => set(Opt::NoDelay, 1..=1),
        3 => set(Opt::Cork, 0..=1),
        20 => set(Opt::UserTimeout, 1000..=30_000),
        20 => set(Opt::KeepAlive, 0..=1),
        3 => set(Opt::ZeroCopy, 0..=1),
        3 => set(Opt::Inq, 0..=1),
        3 => set(Opt::PeekOff, -1..=100),
        3 => set(Opt::Timestamp, 0..=1),
        3 => set(Opt::Linger, 1..=2),
        5 => set(Opt::SndBuf, 200_000..=1_000_000),
        5 => set(Opt::RcvBuf, 200_000..=1_000_000),
        5 => set(Opt::BusyPoll, 0..=50),
        3 => set(Opt::Mark, 0..=7),
        3 => set(Opt::Priority, 0..=6),
        1 => set(Opt::NonBlock, 0..=1),
        30 => select(vec![Opt::Error, Opt::NoDelay, Opt::RcvLowat, Opt::KeepAlive])
            .prop_map(Call::Get),
    ]
}

fn stream() -> impl Strategy<Value = Call> {
    let piece = || prop_oneof![100_usize..=5000, 5000_usize..=200_000];
    prop_oneof![
        3 => (1_usize..=4 << 20, piece(), piece())
            .prop_map(|(len, write, read)| Call::Pump { len, write, read }),
        1 => (1000_usize..=200_000, piece()).prop_map(|(write, read)| Call::Flood { write, read }),
    ]
}
