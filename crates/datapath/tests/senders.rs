//! Who may be in the middle of a redirect, and who is not: what a retirement waits for.

mod common;

use std::arch::asm;
use std::fs::{self, File};
use std::io::{self, PipeReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{hint, mem, process, ptr, slice};

use common::late_page::{LatePage, PAGE, call_until_asleep, send_until_asleep};
use common::stage::Stage;
use common::{Bed, Result, SOON};
use datapath::abi::Reason;
use datapath::drain::{self, Outcome};
use datapath::quiesce::{Quiesce, Sender};
use io_uring::squeue::Flags;
use io_uring::types::{Fd, TimeoutFlags, Timespec};
use io_uring::{IoUring, opcode};
use testbed::{Cgroup, kernel_test, traffic, wait_for};

const MESSAGE: &[u8] = &[7; 1000];

/// Retires while `begin` has a message between verdict and queue: a thread of the process that it names waits there for
/// the lock of the peer's socket. `end` returns when that is over.
fn held<T>(
    cgroup: &Cgroup,
    begin: impl FnOnce(TcpStream) -> Result<(u32, T)>,
    end: impl FnOnce(T) -> Result,
) -> Result {
    let bed = Bed::on(cgroup)?;
    let stage = Stage::new()?;
    let (a, b) = stage.redirected_pair(Some(&bed))?;
    let mut page = LatePage::new();
    let locks = send_until_asleep(b.try_clone()?, page.bytes(), "userfault");
    let (pid, caught) = begin(a.try_clone()?)?;

    let early = Instant::now() + Duration::from_millis(200);
    let outcome = drain::retire(&bed, &bed.conns(), Reason::Retired, early, |_| {})?;
    assert!(matches!(outcome, Outcome::Held(_)), "{outcome:?}");
    let senders = Quiesce::begin()?.look()?;
    let tid = who_waits(pid)?;
    assert!(
        senders.contains(&Sender { pid, tid }),
        "{tid} of {pid} is not among {senders:?}"
    );

    page.come();
    locks.join().expect("it panicked");
    end(caught)?;
    let (mut message, mut sent) = ([0; MESSAGE.len()], [1; PAGE]);
    traffic::read_all(&b, &mut message)?;
    traffic::read_all(&a, &mut sent)?;
    assert_eq!((&message[..], sent), (MESSAGE, [0; PAGE]));
    Ok(())
}

/// The thread of a process that waits for the lock of a socket.
fn who_waits(pid: u32) -> Result<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?.flatten();
    let waits = |task: &fs::DirEntry| {
        let stack = fs::read_to_string(task.path().join("stack"));
        stack.is_ok_and(|stack| stack.contains("lock_sock"))
    };
    let found: Vec<_> = tasks.filter(waits).map(|task| task.file_name()).collect();
    let [one] = &found[..] else {
        return Err(format!("these wait: {found:?}").into());
    };
    Ok(one.to_string_lossy().parse()?)
}

/// As a program for 32-bit processors calls it.
fn write_as_32_bit(sock: &TcpStream, data: &[u8]) -> i32 {
    const WRITE: i32 = 4; // arch/x86/entry/syscalls/syscall_32.tbl
    let address = data.as_ptr() as usize;
    assert!(address < 1 << 32, "such a program's memory");
    let written;
    // SAFETY: the call reads the data, and nothing else; rbx is as before.
    unsafe {
        asm!(
            "xchg rbx, {fd}", "int 0x80", "xchg rbx, {fd}",
            fd = inout(reg) i64::from(sock.as_raw_fd()) => _,
            inout("eax") WRITE => written,
            in("rcx") address, in("rdx") data.len(),
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    written
}

/// The message, in memory that 32 bits reach.
fn low_message() -> Result<&'static [u8]> {
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let how = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
    // SAFETY: a new mapping, for as long as the process lives, that nobody else has.
    unsafe {
        let at = libc::mmap(ptr::null_mut(), MESSAGE.len(), access, how, -1, 0);
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        let memory = slice::from_raw_parts_mut(at.cast::<u8>(), MESSAGE.len());
        memory.copy_from_slice(MESSAGE);
        Ok(memory)
    }
}

/// Leaves a message to a ring that sends it in a moment, and reads meanwhile.
fn send_while_it_reads(sock: &TcpStream, mut pipe: PipeReader) -> Result {
    let moment = Timespec::new().nsec(100_000_000);
    let waits = opcode::Timeout::new(&raw const moment)
        .flags(TimeoutFlags::ETIME_SUCCESS)
        .build();
    let length = u32::try_from(MESSAGE.len())?;
    let sends = opcode::Send::new(Fd(sock.as_raw_fd()), MESSAGE.as_ptr(), length).build();
    let mut ring = IoUring::new(2)?;
    // SAFETY: what they point to lives until both are done.
    unsafe {
        ring.submission()
            .push_multiple(&[waits.flags(Flags::IO_LINK), sends])
    }?;
    ring.submit()?;
    // It goes on by itself when it was interrupted.
    pipe.read_exact(&mut [0])?;
    ring.submit_and_wait(2)?;
    let done: Vec<i32> = ring.completion().map(|done| done.result()).collect();
    assert_eq!(done, [-libc::ETIME, i32::try_from(MESSAGE.len())?]);
    Ok(())
}

/// A process that sends, and whose tracer overwrites the register of return values in the middle of the call.
/// Returns when it waits for the lock.
fn send_traced(sock: &TcpStream) -> Result<libc::pid_t> {
    let fd = sock.as_raw_fd();
    // SAFETY: the child calls nothing but the kernel, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: as above; the message is there.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0);
            libc::raise(libc::SIGSTOP);
            let sent = libc::write(fd, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(i32::from(sent != MESSAGE.len().cast_signed()));
        }
    }
    stopped(child)?;
    let options = libc::PTRACE_O_EXITKILL as usize;
    trace(libc::PTRACE_SETOPTIONS, child, 0, options)?;
    let number = mem::offset_of!(libc::user_regs_struct, orig_rax);
    loop {
        trace(libc::PTRACE_SYSCALL, child, 0, 0)?;
        stopped(child)?;
        if trace(libc::PTRACE_PEEKUSER, child, number, 0)? == libc::SYS_write {
            break;
        }
    }
    let value = mem::offset_of!(libc::user_regs_struct, rax);
    trace(libc::PTRACE_POKEUSER, child, value, 0)?;
    trace(libc::PTRACE_CONT, child, 0, 0)?;
    let waits = || who_waits(child.cast_unsigned()).is_ok();
    wait_for("the child to wait for the lock", SOON, waits)?;
    Ok(child)
}

fn trace(request: libc::c_uint, child: libc::pid_t, at: usize, data: usize) -> io::Result<i64> {
    // SAFETY: none of the requests that are made writes memory of this process.
    match unsafe { libc::ptrace(request, child, at, data) } {
        answer if answer < 0 => Err(io::Error::last_os_error()),
        answer => Ok(answer),
    }
}

/// The child's status when it has stopped or ended.
fn stopped(child: libc::pid_t) -> io::Result<i32> {
    let mut status = 0;
    // SAFETY: the status is a live integer.
    match unsafe { libc::waitpid(child, &raw mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(status),
    }
}

/// A thread that goes on, which it says when it has begun, until it is told otherwise.
type GoesOn = fn(&dyn Fn(), &AtomicBool);

/// Retires a connection at rest while such a thread goes on.
fn is_not_waited_for(cgroup: &Cgroup, goes_on: GoesOn) -> Result {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: the handler does nothing, and no call is to go on after it.
    unsafe {
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = nothing as *const () as usize;
        libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut());
    }
    let bed = Bed::on(cgroup)?;
    let stage = Stage::new()?;
    // No call lasts for ever: on a busy host it may be over before the retirement, which is no answer.
    for _ in 0..TRIES {
        let both = stage.pair()?;
        bed.until_redirected(&both)?;
        if outlasts_a_retirement(&bed, goes_on)? {
            return Ok(());
        }
        drop(both);
        bed.emptied()?;
    }
    panic!("it ended each time before the connection was retired");
}

const TRIES: usize = 3;

fn outlasts_a_retirement(bed: &Bed, goes_on: GoesOn) -> Result<bool> {
    let told = AtomicBool::new(false);
    let (begun, begins) = mpsc::channel();
    thread::scope(|scope| {
        let other = scope.spawn(|| {
            // SAFETY: it takes nothing.
            let this = unsafe { libc::pthread_self() };
            goes_on(&|| begun.send(this).expect("it is waited for"), &told);
        });
        let this = begins.recv()?;
        let soon = Instant::now() + SOON;
        let outcome = drain::retire(bed, &bed.conns(), Reason::Retired, soon, |_| {});
        let went_on = !other.is_finished();
        told.store(true, Ordering::Relaxed);
        // SAFETY: the thread has not been joined.
        unsafe { libc::pthread_kill(this, libc::SIGUSR1) };
        other.join().expect("it panicked");
        let outcome = outcome?;
        assert!(
            matches!(outcome, Outcome::Done { released: 2 }),
            "{outcome:?}"
        );
        Ok(went_on)
    })
}

kernel_test! {
    /// The numbers of its calls mean other calls to the rest of the host.
    fn program_for_32_bit_processors_is_waited_for(cgroup: &Cgroup) -> Result {
        let message = low_message()?;
        let begin = |sock: TcpStream| {
            let send = move || assert_eq!(write_as_32_bit(&sock, message), 1000);
            Ok((process::id(), call_until_asleep(send, "lock_sock")))
        };
        held(cgroup, begin, |caught| {
            caught.join().expect("it panicked");
            Ok(())
        })
    }

    /// Its thread is in a call that sends nothing.
    fn ring_is_waited_for(cgroup: &Cgroup) -> Result {
        let begin = |sock| {
            let (out, into) = io::pipe()?;
            let send = move || send_while_it_reads(&sock, out).unwrap();
            Ok((process::id(), (call_until_asleep(send, "lock_sock"), into)))
        };
        held(cgroup, begin, |(caught, mut pipe)| {
            pipe.write_all(&[0])?;
            caught.join().expect("it panicked");
            Ok(())
        })
    }

    /// Its registers say that the call is over.
    fn traced_process_is_waited_for(cgroup: &Cgroup) -> Result {
        let begin = |sock| {
            let child = send_traced(&sock)?;
            Ok((child.cast_unsigned(), child))
        };
        held(cgroup, begin, |child| {
            assert_eq!(stopped(child)?, 0, "the child");
            Ok(())
        })
    }

    /// It is on a processor all the time, or waits for one.
    fn thread_that_stays_in_another_call_is_not_waited_for(cgroup: &Cgroup) -> Result {
        is_not_waited_for(cgroup, |begins, _| {
            let source = File::open("/dev/urandom").expect("it is there");
            let mut memory = vec![0_u8; 2 << 20];
            let part = libc::iovec { iov_base: memory.as_mut_ptr().cast(), iov_len: memory.len() };
            begins();
            // SAFETY: every part is the same memory, which lives and is nobody else's.
            unsafe { libc::readv(source.as_raw_fd(), [part; 1000].as_ptr(), 1000) };
        })
    }

    /// It might send on the way out of any call, but makes none.
    fn thread_with_a_ring_that_computes_is_not_waited_for(cgroup: &Cgroup) -> Result {
        is_not_waited_for(cgroup, |begins, told| {
            let _ring = IoUring::new(1).expect("a ring");
            begins();
            while !told.load(Ordering::Relaxed) {
                hint::spin_loop();
            }
        })
    }
}
