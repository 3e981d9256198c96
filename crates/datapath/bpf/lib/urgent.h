/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Urgent data (MSG_OOB). The psock queue knows none, so its receiver has to be plain TCP when it comes: its
 * sender makes the connection leave, and the receiver does so when the segment has arrived and is
 * not looked at yet (tcp_validate_incoming, net/ipv4/tcp_input.c, 6.18, before tcp_urg).
 */
#ifndef BEELINE_URGENT_H
#define BEELINE_URGENT_H

#include "call.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#define MSG_OOB 1

/* include/net/tcp.h. The receiver looks for itself, as not every message is shown to its sender's sk_msg: the verdict on one
 * of which TCP took a part and then had no room stays for the next (tcp_bpf_send_verdict, net/ipv4/tcp_bpf.c, 6.18).
 */
#define TCPHDR_URG 0x20

/* Whether the message is from a call with MSG_OOB: its flags are told to nobody, but they are still where the
 * call put them. Who may send by io_uring is left alone.
 */
static __always_inline bool is_urgent(void)
{
	struct pt_regs *regs;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs))
		return false;
	regs = registers_of(bpf_get_current_task_btf());
	switch (CALL(regs)) {
	case CALL_SENDTO:
	case CALL_SENDMMSG:
		return ARGUMENT_4(regs) & MSG_OOB;
	case CALL_SENDMSG:
		return ARGUMENT_3(regs) & MSG_OOB;
	default:
		return false;
	}
}

#endif
