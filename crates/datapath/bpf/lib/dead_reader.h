/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A reader that was closed with data unread. TCP resets such a connection (__tcp_close, net/ipv4/tcp.c, 6.18), but of
 * what waits in a psock it does not know, and ends the stream instead. What is sent then gets the reset. A
 * sender that waits for room sends nothing, though: its window is closed, the reader's TIME-WAIT socket goes on
 * saying so for a minute (tcp_timewait_state_process, net/ipv4/tcp_minisocks.c), and by then it may ask every two
 * minutes only (invariant 2).
 *
 * So it gives up. When the end of the stream has come, or an answer to its asking, and TCP has not looked at it yet,
 * the sender gets a user timeout, which TCP heeds as soon as it finds the window closed (tcp_ack_probe,
 * net/ipv4/tcp_input.c).
 */
#ifndef BEELINE_DEAD_READER_H
#define BEELINE_DEAD_READER_H

#include "peer.h"

/* Long enough for a reset, if there is one. */
#define GIVE_UP_MS 1000

/* Its socket was closed: all that was unread has gone with its psock. After shutdown(SHUT_RDWR) it is
 * there, or in TCP's queue.
 */
static __always_inline bool is_dead(struct sock *reader)
{
	return peer_shut_reading(reader) && !sock_psock(reader) &&
	       !READ(sock, reader, sk_receive_queue.qlen);
}

/* Something cannot be sent, or could not. */
static __always_inline bool is_stuck(struct sock *sk)
{
	__u32 sent = READ(tcp_sock, sk, snd_nxt);
	__s32 window = READ(tcp_sock, sk, snd_una) + READ(tcp_sock, sk, snd_wnd) - sent;

	return window <= 0 || READ(tcp_sock, sk, write_seq) != sent;
}

static __always_inline void give_up(struct bpf_sock_ops *ops, struct sock *sk)
{
	int time = GIVE_UP_MS;

	if (is_stuck(sk))
		bpf_setsockopt(ops, SOL_TCP, TCP_USER_TIMEOUT, &time, sizeof(time));
}

#endif
