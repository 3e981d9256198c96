/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which programs may use the socket path.
 *
 * splice(2) from a socket reads the TCP receive queue alone (tcp_splice_read, net/ipv4/tcp.c, 6.18):
 * it never sees a redirected byte, and nothing can be attached to it on every kernel. So only
 * programs that cannot splice are enrolled (invariant 2). User space knows them by their files
 * (src/programs/); calls in process context tell who makes a socket.
 */
#ifndef BEELINE_PROGRAM_H
#define BEELINE_PROGRAM_H

#include "maps.h"
#include "sock.h"
#include "task.h"

/* From Linux 6.13 on, the highest bit of the nanoseconds tells whether somebody asked for them
 * (I_CTIME_QUERIED, include/linux/fs.h).
 */
#define NSEC_MASK 0x7fffffff

static __always_inline void read_ctime(struct inode *inode, struct program *to)
{
	struct inode___with_timespec *with = (void *)inode;
	struct inode___before *before = (void *)inode;

	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		to->ctime = READ(inode, inode, i_ctime_sec);
		to->ctime_nsec = READ(inode, inode, i_ctime_nsec) & NSEC_MASK;
	} else if (bpf_core_field_exists(with->__i_ctime)) {
		to->ctime = BPF_CORE_READ(with, __i_ctime.tv_sec);
		to->ctime_nsec = BPF_CORE_READ(with, __i_ctime.tv_nsec);
	} else {
		to->ctime = BPF_CORE_READ(before, i_ctime.tv_sec);
		to->ctime_nsec = BPF_CORE_READ(before, i_ctime.tv_nsec);
	}
}

/* false for a thread of the kernel. */
static __always_inline bool read_program(struct task_struct *task, struct program *to)
{
	struct mm_struct *mm = READ(task_struct, task, mm);
	struct file *file = mm ? READ(mm_struct, mm, exe_file) : 0;
	struct inode *inode = file ? READ(file, file, f_inode) : 0;
	struct super_block *filesystem;

	__builtin_memset(to, 0, sizeof(*to));
	if (!inode)
		return false;
	filesystem = READ(inode, inode, i_sb);
	to->inode = READ(inode, inode, i_ino);
	to->device = READ(super_block, filesystem, s_dev);
	read_ctime(inode, to);
	return true;
}

/* Whether the thread, or the first one of its process, has used io_uring. A socket that enters a sockmap
 * after it has got a file takes no IORING_OP_SEND_ZC any more, for good: EOPNOTSUPP (sock_map_link,
 * net/core/sock_map.c; SOCK_SUPPORT_ZC).
 */
static __always_inline bool has_ring(struct task_struct *task)
{
	struct task_struct *first = READ(task_struct, task, group_leader);

	if (!bpf_core_field_exists(task->io_uring))
		return false;
	return READ(task_struct, task, io_uring) || READ(task_struct, first, io_uring) ||
	       READ(task_struct, task, flags) & PF_IO_WORKER;
}

/* false for a thread of the kernel. */
static __always_inline bool read_caller(struct task_struct *task, struct caller *to)
{
	__builtin_memset(to, 0, sizeof(*to));
	to->has_ring = has_ring(task);
	return read_program(task, &to->program);
}

/* Why whoever made a socket rules out redirection, if so. */
static __always_inline enum reason caller_unfit(struct caller *caller)
{
	__u32 *verdict = caller ? bpf_map_lookup_elem(&programs, &caller->program) : 0;

	if (!verdict || *verdict == VERDICT_UNKNOWN)
		return REASON_UNKNOWN_PROGRAM;
	if (*verdict == VERDICT_USES_ULP)
		return REASON_ULP;
	if (*verdict != VERDICT_NEVER_SPLICES)
		return REASON_MAY_SPLICE;
	return caller->has_ring ? REASON_IO_URING : REASON_NONE;
}

#endif
