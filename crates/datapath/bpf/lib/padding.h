/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A reader whose program has set an option that TCP has to heed leaves when nothing waits in its queue. But the first
 * segment for it waits there before anything is said about it: TCP acknowledges a segment with the expected header
 * when it is in the queue (tcp_rcv_established, net/ipv4/tcp_input.c, 6.18). One whose header is longer than expected is
 * looked at first (tcp_validate_incoming), and then the reader can leave (packet_comes), so that its program's option
 * acts on that segment, too.
 *
 * So the sender's header gets padding, until the reader has left.
 */
#ifndef BEELINE_PADDING_H
#define BEELINE_PADDING_H

#include "sock.h"

/* Headers have 32-bit words. Where no program writes anything, the kernel puts NOPs (bpf_skops_write_hdr_opt,
 * net/ipv4/tcp_output.c, 6.18).
 */
#define PADDING 4

static __always_inline void pad_for_reader(struct bpf_sock_ops *ops, struct end *end)
{
	if (end->tx_reason == REASON_OPTION && sock_psock((struct sock *)end->peer_sk))
		bpf_reserve_hdr_opt(ops, PADDING, 0);
}

#endif
