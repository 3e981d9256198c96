/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A full queue at the reader (invariant 5). Nothing here can make a sender wait; TCP can, and one byte of a
 * message is enough for it:
 *
 *   the last byte of a message    is under way alone, until the reader has read all that waits: then TCP
 *                                 acknowledges what came in a short segment, or 40 ms after it came
 *   that of the next              is kept by Nagle's algorithm until that acknowledgement; and while TCP keeps
 *                                 a byte, it takes no more (hold_sender in flight.h)
 *
 * All before the last byte is redirected. docs/decisions/0011-last-byte.md.
 */
#ifndef BEELINE_FULL_H
#define BEELINE_FULL_H

#include "peer.h"
#include "small.h"

/* Bytes that the kernel takes for each message that waits, however short: a struct sk_msg, from
 * kmalloc-1k (alloc_sk_msg, net/core/skmsg.c). They do not count as TCP memory. How many messages
 * wait is not known; it is taken that they are as long as those of the connection are on average.
 */
#define MESSAGE_COST 1024

static __always_inline __u64 queue_cost(struct end *end, __u32 unread)
{
	__u64 average = end->redirected_bytes / (end->redirected_msgs ?: 1);

	return average < MESSAGE_COST ? (__u64)unread * MESSAGE_COST / (average ?: 1) : unread;
}

/* What may wait at the reader of this end. */
static __always_inline __u32 queue_limit(struct settings *set, struct end *end)
{
	__u32 most = largest_receive_buffer((struct sock *)end->peer_sk);
	__u32 limit = end->queue_limit ?: set->queue_limit;

	return limit < most ? limit : most;
}

/* Whether what waits is within a part of the limit. A message is at most as long as one sk_msg, so the
 * excess is bounded.
 */
static __always_inline bool has_room(struct settings *set, struct end *end, __u32 unread,
				     __u32 divisor)
{
	return queue_cost(end, unread) <= queue_limit(set, end) / divisor;
}

/* All that went over the kernel path is at the reader's socket. */
static __always_inline bool has_arrived(struct tcp_sock *own, struct sock *peer)
{
	return READ(tcp_sock, peer, rcv_nxt) == own->write_seq;
}

/* Messages whose last byte did not make the sender wait may take this part of the limit beyond it. */
#define EXCESS 8

/* Whether the last byte of a message is all that has to take the kernel path. With Nagle's algorithm the
 * sender then waits, now or before the message after the next; with TCP_NODELAY it does when the excess is
 * used up, before which the reader mostly runs. Not if the byte would not leave, as with TCP_CORK: nothing
 * would bring an acknowledgement. (With MSG_MORE, which cannot be seen here, it does not leave either; the next
 * message finds that it has not arrived, and goes whole.) Nor if the reader's program answers: its end
 * acknowledges later then (icsk_ack.pingpong, __tcp_cleanup_rbuf, net/ipv4/tcp.c).
 */
static __always_inline bool last_byte_suffices(struct settings *set, struct tcp_sock *own,
					       struct end *end, __u32 unread, __u32 size)
{
	__u32 limit = queue_limit(set, end);

	return size > 1 && !(BPF_CORE_READ_BITFIELD(own, nonagle) & TCP_NAGLE_CORK) &&
	       !READ(inet_connection_sock, (struct sock *)end->peer_sk, icsk_ack.pingpong) &&
	       queue_cost(end, unread) <= limit + limit / EXCESS;
}

#endif
