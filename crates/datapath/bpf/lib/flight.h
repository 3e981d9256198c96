/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * How much a sender has under way over the kernel path while its reader is behind.
 *
 * All that is under way has to arrive and be read before the direction is redirected again. So the
 * congestion window, which bounds it, starts small and stays so while the reader is behind. On the
 * way between two sockets of one host nothing is won by a larger one. If it stays small for good,
 * for want of an acknowledgement that a program of ours sees, little is lost.
 * docs/decisions/0004-queue-limit.md.
 */
#ifndef BEELINE_FLIGHT_H
#define BEELINE_FLIGHT_H

#include "sock.h"

#define FLIGHT_BYTES (64 << 10)

/* include/net/tcp.h: what TCP takes for no limit */
#define TCP_INFINITE_SSTHRESH 0x7fffffff

/* Of the segments that TCP counts in. Two at least: a reader's kernel acknowledges a second one at
 * once, and a single one up to 200 ms later.
 */
static __always_inline int flight_segments(struct bpf_sock_ops *ops)
{
	int segments = FLIGHT_BYTES / (ops->mss_cache ?: 1);

	return segments < 2 ? 2 : segments;
}

/* Before the first data: a smaller initial window than the kernel's. */
static __always_inline void start_small(struct bpf_sock_ops *ops)
{
	int segments = flight_segments(ops);

	if (segments < (int)ops->snd_cwnd)
		bpf_setsockopt(ops, SOL_TCP, TCP_BPF_IW, &segments, sizeof(segments));
}

/* A limit of the route itself stays (`ip route ... cwnd lock`). */
static __always_inline void keep_small(struct bpf_sock_ops *ops, struct sock *sk, struct end *end,
				       bool small)
{
	int segments = small ? flight_segments(ops) : TCP_INFINITE_SSTHRESH;

	if (small == !!(end->flags & END_SMALL_FLIGHT))
		return;
	if (small && READ(tcp_sock, sk, snd_cwnd_clamp) < TCP_INFINITE_SSTHRESH)
		return;
	bpf_setsockopt(ops, SOL_TCP, TCP_BPF_SNDCWND_CLAMP, &segments, sizeof(segments));
	end->flags ^= END_SMALL_FLIGHT;
}

/* Whether this end sends over the kernel path for want of room. Not when it has left, for whatever reason. */
static __always_inline bool waits_for_reader(struct sock *sk, struct end *end)
{
	return end->tx_reason == REASON_QUEUE_FULL && sock_psock(sk);
}

/* While an end sends over the kernel path for want of room, TCP must not take more than it can send at
 * once: then the sender waits between two messages, as it would for plain TCP's own buffers, until
 * the reader has caught up and the direction can return. Else it would wait within one, and go on over
 * the kernel path for ever. What the program itself has set stays.
 */
static __always_inline void hold_sender(struct bpf_sock_ops *ops, struct sock *sk, struct end *end,
					bool hold)
{
	int wanted = hold, now;

	keep_small(ops, sk, end, hold);
	if (hold == !!(end->flags & END_HELD) ||
	    bpf_getsockopt(ops, SOL_TCP, TCP_NOTSENT_LOWAT, &now, sizeof(now)))
		return;
	if (!hold)
		end->flags &= ~END_HELD;
	if (now != !hold)
		return;
	if (!bpf_setsockopt(ops, SOL_TCP, TCP_NOTSENT_LOWAT, &wanted, sizeof(wanted)) && hold)
		end->flags |= END_HELD;
}

#endif
