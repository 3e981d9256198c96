/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * MSG_ZEROCOPY on an enrolled socket, which got SO_ZEROCOPY after its handshake and has not left yet.
 *
 * Each such send has one completion. For what sk_msg passes, TCP makes one for each element of the message
 * (tcp_bpf_push, net/ipv4/tcp_bpf.c; msg_zerocopy_realloc, net/core/skbuff.c, 6.18): a program that counts
 * them would take the buffer of its next send for free while it is in use. So the message becomes one.
 */
#ifndef BEELINE_ZERO_COPY_H
#define BEELINE_ZERO_COPY_H

#include "sock.h"

/* So far as the kernel has memory for one that long, and the socket's buffer has room for it at once. */
static __always_inline void complete_once(struct sk_msg_md *msg)
{
	struct sock *sk = READ(sk_msg, msg, sk);

	if (SOCK_FLAG(sk, SOCK_ZEROCOPY))
		bpf_msg_pull_data(msg, 0, msg->size, 0);
}

#endif
