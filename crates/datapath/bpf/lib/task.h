/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Flags of a thread: include/linux/sched.h. */
#ifndef BEELINE_TASK_H
#define BEELINE_TASK_H

#define PF_IO_WORKER 0x10 /* the kernel made it for a ring */
#define PF_KTHREAD 0x200000 /* the kernel's own */

#endif
