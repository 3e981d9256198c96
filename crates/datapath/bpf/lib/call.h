/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* System calls, as a thread's registers show them while it is in one. */
#ifndef BEELINE_CALL_H
#define BEELINE_CALL_H

#include "../vmlinux.h"
#include <bpf/bpf_helpers.h>

#if defined(__TARGET_ARCH_x86)
#define CALL(regs) (regs)->orig_ax
#define ARGUMENT_3(regs) (regs)->dx
#define ARGUMENT_4(regs) (regs)->r10
#define CALL_SENDTO 44
#define CALL_SENDMSG 46
#define CALL_SENDMMSG 307
/* A call begins with -ENOSYS where its return value comes (arch/x86/entry/entry_64.S, 6.18). */
#define HAS_RETURNED(regs) ((regs)->ax != (unsigned long)-38)
/* arch/x86/include/asm/thread_info.h: TS_COMPAT */
#define IS_32_BIT(info) ((info).status & 0x2)
#elif defined(__TARGET_ARCH_arm64)
#define CALL(regs) (regs)->syscallno
#define ARGUMENT_3(regs) (regs)->regs[2]
#define ARGUMENT_4(regs) (regs)->regs[3]
#define CALL_SENDTO 206
#define CALL_SENDMSG 211
#define CALL_SENDMMSG 269
/* A call begins with its first argument where its return value comes, and with a copy of it elsewhere
 * (el0_svc_common, arch/arm64/kernel/syscall.c, 6.18).
 */
#define HAS_RETURNED(regs) ((regs)->regs[0] != (regs)->orig_x0)
/* arch/arm64/include/asm/thread_info.h: TIF_32BIT */
#define IS_32_BIT(info) ((info).flags & 1 << 22)
#endif

/* Of the call that the thread is in, or, if it is in none, was in last. Linux 5.15. */
static __always_inline struct pt_regs *registers_of(struct task_struct *task)
{
	return (struct pt_regs *)bpf_task_pt_regs(task);
}

#endif
