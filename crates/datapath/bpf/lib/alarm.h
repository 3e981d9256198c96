/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Waking a reader once more when it has emptied its psock queue and bytes of the kernel path lie
 * behind it.
 *
 * A read that empties the psock queue is short although there is more (tcp_bpf_recvmsg). A program
 * that waits for edges may take that for the end; and the edge that told of the bytes behind may be
 * consumed already (invariant 2). No program of ours runs when a queue becomes empty, so the
 * socket's own keepalive timer is the clock: every second it sends a probe, and a sock_ops event
 * goes with every packet that a socket sends. docs/decisions/0006-edge-triggered-readers.md.
 */
#ifndef BEELINE_ALARM_H
#define BEELINE_ALARM_H

#include "maps.h"
#include "rest.h"
#include "sock.h"

/* fs/eventpoll.c: an epoll set waits on the socket */
extern const void ep_poll_callback __ksym __weak;

/* Seconds between two ticks; the least that TCP_KEEPIDLE and TCP_KEEPINTVL take. */
#define TICK 1

/* After so many ticks that the peer did not answer, the socket keeps no clock: by itself TCP would
 * give the connection up.
 */
#define UNANSWERED 2

/* A wait queue entry of an epoll set that looks at the socket's state each time: no EPOLLET. */
static __always_inline bool is_level_triggered(struct wait_queue_entry *entry)
{
	struct eppoll_entry *in_set;

	if (!&ep_poll_callback || (void *)BPF_CORE_READ(entry, func) != &ep_poll_callback)
		return false;
	in_set = (void *)entry - bpf_core_field_offset(struct eppoll_entry, wait);
	return !(BPF_CORE_READ(in_set, base, event.events) & EPOLLET);
}

/* Whether a reader may rely on edges. One that does not wait yet may come to. */
static __always_inline bool may_rely_on_edges(struct sock *sk)
{
	struct socket_wq *wq = BPF_CORE_READ(sk, sk_wq);
	struct list_head *head = &wq->wait.head, *at = BPF_CORE_READ(wq, wait.head.next);
	int seen = 0;

	for (; seen < MAX_SLEEPERS && at != head; seen++) {
		struct wait_queue_entry *entry =
			(void *)at - bpf_core_field_offset(struct wait_queue_entry, entry);

		if (!is_level_triggered(entry))
			return true;
		at = BPF_CORE_READ(entry, entry.next);
	}
	return seen == 0 || at != head;
}

static __always_inline int get_option(struct bpf_sock_ops *ops, int level, int name)
{
	int value = 0;

	bpf_getsockopt(ops, level, name, &value, sizeof(value));
	return value;
}

static __always_inline void set_option(struct bpf_sock_ops *ops, int level, int name, int value)
{
	bpf_setsockopt(ops, level, name, &value, sizeof(value));
}

/* Before Linux 6.1 the options of ring() and of the clock cannot be read here, and ring() would wake
 * nobody (net/core/filter.c, sol_socket_sockopt).
 */
static __always_inline bool can_ring(struct bpf_sock_ops *ops)
{
	int value;

	return bpf_getsockopt(ops, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0;
}

/* Wakes who waits for something to read, if there is: tcp_set_rcvlowat() does (net/ipv4/tcp.c). */
static __always_inline void ring(struct bpf_sock_ops *ops)
{
	set_option(ops, SOL_SOCKET, SO_RCVLOWAT, get_option(ops, SOL_SOCKET, SO_RCVLOWAT));
}

static __always_inline void start_clock(struct bpf_sock_ops *ops, struct bpf_sock *sk,
					struct sock *kern)
{
	struct alarm *alarm = bpf_sk_storage_get(&alarms, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);

	if (!alarm)
		return;
	alarm->since_ns = bpf_ktime_get_ns();
	/* A program that has not accepted it yet may set the option meanwhile, and it must stay. */
	alarm->keepalive =
		get_option(ops, SOL_SOCKET, SO_KEEPALIVE) || !BPF_CORE_READ(kern, sk_socket);
	alarm->idle = get_option(ops, SOL_TCP, TCP_KEEPIDLE);
	alarm->interval = get_option(ops, SOL_TCP, TCP_KEEPINTVL);
	set_option(ops, SOL_TCP, TCP_KEEPINTVL, TICK);
	set_option(ops, SOL_TCP, TCP_KEEPIDLE, TICK);
	set_option(ops, SOL_SOCKET, SO_KEEPALIVE, 1);
}

/* What the program has set meanwhile stays. */
static __always_inline void stop_clock(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				       struct alarm *alarm)
{
	if (get_option(ops, SOL_TCP, TCP_KEEPINTVL) == TICK)
		set_option(ops, SOL_TCP, TCP_KEEPINTVL, alarm->interval);
	if (get_option(ops, SOL_TCP, TCP_KEEPIDLE) == TICK)
		set_option(ops, SOL_TCP, TCP_KEEPIDLE, alarm->idle);
	if (!alarm->keepalive)
		set_option(ops, SOL_SOCKET, SO_KEEPALIVE, 0);
	bpf_sk_storage_delete(&alarms, sk);
}

/* The reader slept through it, as nobody holds the socket after a whole tick. It would again, so the
 * direction to it shall not be redirected any more.
 */
static __always_inline void note_stranded(struct bpf_sock *sk, struct sock *kern,
					  struct alarm *alarm)
{
	struct end *end = bpf_sk_storage_get(&ends, sk, 0, 0);
	struct handshake client;
	struct conn *conn;

	if (!end || BPF_CORE_READ(kern, sk_lock.owned) ||
	    bpf_ktime_get_ns() - alarm->since_ns < TICK * NSEC_PER_SEC)
		return;
	client = client_view(end);
	conn = bpf_map_lookup_elem(&conns, &client);
	if (conn && is_client(end))
		conn->client_stranded = 1;
	else if (conn)
		conn->server_stranded = 1;
}

static __always_inline bool peer_was_stranded(struct end *end)
{
	struct handshake client = client_view(end);
	struct conn *conn = bpf_map_lookup_elem(&conns, &client);

	return conn && (is_client(end) ? conn->server_stranded : conn->client_stranded);
}

/* The psock queue holds bytes. */
static __always_inline void still_full(struct bpf_sock_ops *ops, struct bpf_sock *sk,
				       struct sock *kern, struct alarm *alarm)
{
	struct tcp_sock *tp = (struct tcp_sock *)kern;

	if (!alarm && may_rely_on_edges(kern))
		start_clock(ops, sk, kern);
	else if (alarm && BPF_CORE_READ(tp, inet_conn.icsk_probes_out) >= UNANSWERED)
		stop_clock(ops, sk, alarm);
}

/* An enrolled socket is about to send a packet: data, an acknowledgement of what arrived, or a tick
 * of its clock.
 */
static __always_inline void packet_leaves(struct bpf_sock_ops *ops, struct sock *kern)
{
	struct tcp_sock *tp = (struct tcp_sock *)kern;
	bool behind = BPF_CORE_READ(tp, rcv_nxt) != BPF_CORE_READ(tp, copied_seq);
	struct sk_psock *psock = sock_psock(kern);
	struct bpf_sock *sk = ops->sk;
	struct alarm *alarm;

	if (!sk)
		return;
	alarm = bpf_sk_storage_get(&alarms, sk, 0, 0);
	if ((!psock && !alarm) || !can_ring(ops)) {
		/* It is plain TCP again, or cannot be helped, and has no more to pay. */
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags &
						       ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
		return;
	}
	if (!alarm && !behind)
		return;
	if (psock && psock_unread(psock)) {
		still_full(ops, sk, kern, alarm);
	} else if (alarm) {
		if (behind) {
			note_stranded(sk, kern, alarm);
			ring(ops);
		}
		stop_clock(ops, sk, alarm);
	} else if ((ops->skb_len || !BPF_CORE_READ(kern, sk_lock.owned)) &&
		   may_rely_on_edges(kern)) {
		/* It was emptied before this acknowledgement. One that a call sends without data
		 * is that of a native read, which is under way.
		 */
		ring(ops);
	}
}

#endif
