/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reports the threads that are awake, and in which system call each is. Of one that is on a processor, or waits
 * for one, /proc tells no call (lib/syscall.c, 6.18); its time in user mode there is a share of all its time that
 * grows within a call as well (cputime_adjust, kernel/sched/cputime.c); and it does not tell who has a ring.
 */
#include "vmlinux.h"
#include "abi.h"
#include "lib/call.h"
#include "lib/task.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* include/linux/sched.h: a thread in one of these states sleeps for anything but a lock of a socket or memory, or
 * is stopped, frozen, or dead.
 */
#define TASK_INTERRUPTIBLE 0x1
#define __TASK_STOPPED 0x4
#define __TASK_TRACED 0x8
#define TASK_PARKED 0x40
#define TASK_DEAD 0x80
#define TASK_NOLOAD 0x400
#define TASK_FROZEN 0x8000
#define AT_REST                                                                          \
	(TASK_INTERRUPTIBLE | __TASK_STOPPED | __TASK_TRACED | TASK_PARKED | TASK_DEAD | \
	 TASK_NOLOAD | TASK_FROZEN)

/* Whether it sends without a call of its own: what a thread has left to a ring is done on its way out of any call, too. */
static __always_inline bool sends_unasked(struct task_struct *task)
{
	bool has_ring = bpf_core_field_exists(task->io_uring) && BPF_CORE_READ(task, io_uring);

	return BPF_CORE_READ(task, flags) & (PF_KTHREAD | PF_IO_WORKER) || has_ring;
}

/* The registers of one that is in user mode are those with which it came there. A tracer may set them at will. */
static __always_inline bool is_outside(struct task_struct *task, struct pt_regs *regs)
{
	return !BPF_CORE_READ(task, ptrace) && HAS_RETURNED(regs);
}

SEC("iter/task")
int beeline_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct thread thread = { .call = -1 };
	struct pt_regs *regs;

	if (!task || BPF_CORE_READ(task, __state) & AT_REST)
		return 0;
	thread.user_ns = BPF_CORE_READ(task, utime);
	thread.pid = BPF_CORE_READ(task, tgid);
	thread.tid = BPF_CORE_READ(task, pid);
	if (!sends_unasked(task)) {
		regs = registers_of(task);
		if (is_outside(task, regs))
			return 0;
		if (!IS_32_BIT(task->thread_info))
			thread.call = CALL(regs);
	}
	bpf_seq_write(ctx->meta->seq, &thread, sizeof(thread));
	return 0;
}
