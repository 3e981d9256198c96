/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Who is inside the calls of a socket, and what is on its way to its reader: what has to be known
 * before a direction returns to the redirect, or a socket leaves the maps (invariant 1).
 */
#ifndef BEELINE_REST_H
#define BEELINE_REST_H

#include "maps.h"
#include "sock.h"

/* More sleepers than this at one socket are not looked at. */
#define MAX_SLEEPERS 4

/* The address of the function in kernel/sched/wait.c: how both tcp_recvmsg and tcp_bpf_recvmsg sleep, and a sender
 * without room. User space fills it in before loading; 0 where it cannot be told.
 */
const volatile __u64 woken_wake_function SEC(".rodata.symbols") = 0;

/* How many threads sleep in a read or a write of the socket; -1 when that cannot be told. */
static __always_inline int sleepers(struct sock *sk)
{
	struct socket_wq *wq = BPF_CORE_READ(sk, sk_wq);
	struct list_head *head = &wq->wait.head, *at = BPF_CORE_READ(wq, wait.head.next);
	int found = 0;

	if (!woken_wake_function)
		return -1;
	for (int i = 0; i < MAX_SLEEPERS; i++) {
		struct wait_queue_entry *entry;

		if (at == head)
			return found;
		entry = (void *)at - bpf_core_field_offset(struct wait_queue_entry, entry);
		if ((__u64)BPF_CORE_READ(entry, func) == woken_wake_function)
			found++;
		at = BPF_CORE_READ(entry, entry.next);
	}
	return at == head ? found : -1;
}

/* More maps than this that hold a socket are not looked at. */
#define MAX_MAPS 4

/* How many maps hold a psock; 0 when that cannot be told, as while one is taken off the list. */
static __always_inline int maps_of(struct sk_psock *psock)
{
	struct list_head *head = (void *)psock + bpf_core_field_offset(struct sk_psock, link);
	struct list_head *at = READ(sk_psock, psock, link.next);

	for (int i = 0; i < MAX_MAPS; i++) {
		if (at == head)
			return i;
		at = BPF_CORE_READ(at, next);
	}
	return 0;
}

/* How many threads are inside tcp_bpf_recvmsg or tcp_bpf_sendmsg of the socket: each holds a
 * reference to the psock, beside those of the maps (net/ipv4/tcp_bpf.c). User space may take the socket out of one
 * meanwhile: the kernel takes a map off the list before it drops its reference (sock_map_unref, net/core/sock_map.c),
 * so that counting in this order never finds too few.
 */
static __always_inline int inside(struct sock *sk)
{
	struct sk_psock *psock = sock_psock(sk);
	int held = READ(sk_psock, psock, refcnt.refs.counter);

	barrier();
	return held - maps_of(psock);
}

/* Whoever is inside a call of the socket sleeps there, but for the `callers` that are known. A sender that is between
 * verdict and queue does not, so no other one is: nothing is on its way from this socket. Without a psock nobody is
 * inside.
 */
static __always_inline bool others_sleep(struct sock *sk, int callers)
{
	/* If it cannot be told who sleeps, that is -1, and more seem to be awake than are inside. */
	return !sock_psock(sk) || inside(sk) - sleepers(sk) == callers;
}

/* Somebody has the socket: a softirq, or a call. */
static __always_inline bool is_locked(struct sock *sk)
{
	return READ(sock, sk, sk_lock.owned) ||
	       READ(sock, sk, sk_lock.slock.rlock.raw_lock.val.counter);
}

/* All that arrived for the socket over the kernel path is in its psock queue, behind what was there
 * before. Bytes stay in TCP's receive queue until the socket is accepted, and in ingress_skb when
 * the kernel had no memory for their place in the queue (net/core/skmsg.c, sk_psock_verdict_apply);
 * in between they are in the hands of who has the lock.
 */
static __always_inline bool all_is_queued(struct sock *sk)
{
	return READ(sock, sk, sk_receive_queue.qlen) == 0 && !is_locked(sk) &&
	       READ(sk_psock, sock_psock(sk), ingress_skb.qlen) == 0;
}

/* A socket that is no target any more may become plain TCP: nothing waits in the psock, and no thread
 * of a blocking one is in its calls but `callers` of them that do not sleep, as who sleeps there would
 * never look at TCP's receive queue (net/ipv4/tcp_bpf.c, tcp_bpf_recvmsg_parser). Holds while the
 * caller has the socket's lock and nothing is on its way to it. In this order: the kernel's worker
 * moves from ingress_skb to the queue without the lock.
 */
static __always_inline bool may_leave(struct sock *sk, int callers)
{
	struct sk_psock *psock = sock_psock(sk);

	return READ(sk_psock, psock, ingress_skb.qlen) == 0 && psock_unread(psock) == 0 &&
	       (!is_blocking(sk) || (sleepers(sk) == 0 && inside(sk) <= callers));
}

/* For sock_ops: if the lock has an owner, that is a call which sends this packet, or which takes it on giving back the
 * lock and then either is over or sleeps already. A thread that sleeps in a read does not own it.
 */
static __always_inline int calls_that_send(struct sock *sk)
{
	return !!READ(sock, sk, sk_lock.owned);
}

#endif
