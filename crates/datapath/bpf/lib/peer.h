/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Looking at the other end of a connection from a sender's message; its memory may be gone. */
#ifndef BEELINE_PEER_H
#define BEELINE_PEER_H

#include "sock.h"

/* Where the kernel does not count what waits at the peer: all that this end sent since it saw the
 * queue empty, in steps of 64 KiB. It is never less than what waits, but for messages that other
 * threads are just sending.
 */
static __always_inline __u32 unread_at_most(struct end *end, struct sk_psock *peer)
{
	if (psock_unread(peer) == 0)
		end->empty_at = end->redirected_bytes >> 16;
	return (__u32)end->redirected_bytes - ((__u32)end->empty_at << 16);
}

/* Whether the peer's memory is still its socket, and how much waits unread there. */
static __always_inline bool peer_unread(struct end *end, __u32 *unread)
{
	struct sock *peer = (struct sock *)end->peer_sk;
	struct sk_psock *psock = sock_psock(peer);

	*unread = psock_counts_unread() ? psock_unread(psock) : unread_at_most(end, psock);
	return sock_cookie(peer) == end->peer_cookie;
}

/* Whether the peer's program has said that it reads no more. */
static __always_inline bool peer_shut_reading(struct sock *peer)
{
	return READ(sock, peer, sk_shutdown) & RCV_SHUTDOWN;
}

/* What waits redirected takes room in the reader's receive buffer (bpf_tcp_ingress since Linux 6.13,
 * net/ipv4/tcp_bpf.c). Without any left TCP drops what comes over the kernel path, although its window
 * allowed it (tcp_data_queue, net/ipv4/tcp_input.c), and the sender waits for a timeout of 200 ms or
 * more. So this much may wait and leave room for the window: half of a buffer that the program chose,
 * three quarters of what the kernel lets the buffer grow to.
 */
static __always_inline __u32 largest_receive_buffer(struct sock *sk)
{
	struct net *net = READ(sock, sk, __sk_common.skc_net.net);

	return READ(net, net, ipv4.sysctl_tcp_rmem[2]) / 4U * 3;
}

/* SO_RCVBUF asks for less than these bytes; the kernel doubles what is asked for (socket(7)). */
static __always_inline bool is_more_than_chosen(struct sock *sk, __u32 bytes)
{
	return READ_BITS(sock, sk, sk_userlocks) & SOCK_RCVBUF_LOCK &&
	       bytes > (__u32)READ(sock, sk, sk_rcvbuf) / 2;
}

#endif
