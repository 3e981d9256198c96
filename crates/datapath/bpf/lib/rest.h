/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who is inside the calls of a socket.
 *
 * A reader empties its psock queue before it looks at the TCP receive queue. So a message may be
 * redirected behind bytes that took the kernel path only when all of these were read, and when no
 * reader sleeps where only the TCP receive queue wakes it (invariants 1 and 2).
 */
#ifndef BEELINE_REST_H
#define BEELINE_REST_H

#include "maps.h"
#include "sock.h"

/* More sleepers than this at one socket are not looked at. */
#define MAX_SLEEPERS 4

/* kernel/sched/wait.c: how both tcp_recvmsg and tcp_bpf_recvmsg sleep, and a sender without room */
extern const void woken_wake_function __ksym __weak;

/* Every byte that went over the kernel path was acknowledged, and copied to the reader. */
static __always_inline bool all_was_read(struct tcp_sock *own, struct tcp_sock *peer)
{
	return own->write_seq == own->snd_una &&
	       BPF_CORE_READ(peer, rcv_nxt) == BPF_CORE_READ(peer, copied_seq);
}

/* How many threads sleep in a read or a write of the socket; -1 when that cannot be told. */
static __always_inline int sleepers(struct sock *sk)
{
	struct socket_wq *wq = BPF_CORE_READ(sk, sk_wq);
	struct list_head *head = &wq->wait.head, *at = BPF_CORE_READ(wq, wait.head.next);
	int found = 0;

	if (!&woken_wake_function)
		return -1;
	for (int i = 0; i < MAX_SLEEPERS; i++) {
		struct wait_queue_entry *entry;

		if (at == head)
			return found;
		entry = (void *)at - bpf_core_field_offset(struct wait_queue_entry, entry);
		if ((void *)BPF_CORE_READ(entry, func) == &woken_wake_function)
			found++;
		at = BPF_CORE_READ(entry, entry.next);
	}
	return at == head ? found : -1;
}

/* How many threads are inside tcp_bpf_recvmsg or tcp_bpf_sendmsg of the socket: each holds a
 * reference to the psock, beside those of the maps (net/ipv4/tcp_bpf.c).
 */
static __always_inline int inside(struct sock *sk, int maps)
{
	return BPF_CORE_READ(sock_psock(sk), refcnt.refs.counter) - maps;
}

/* Whoever is inside a call of the socket sleeps there. A sender that is between verdict and queue
 * does not, so none is: nothing is on its way from this socket.
 */
static __always_inline bool all_inside_sleep(struct sock *sk, int maps)
{
	return sleepers(sk) == inside(sk, maps);
}

/* Nobody sleeps in a native read of the socket: who does holds no reference. Whoever has the
 * socket's lock may be about to.
 */
static __always_inline bool nobody_reads_natively(struct sock *sk)
{
	return !BPF_CORE_READ(sk, sk_lock.owned) && BPF_CORE_READ(sk, sk_rcvlowat) <= 1 &&
	       all_inside_sleep(sk, MAPS_OF_A_SOCKET);
}

#endif
