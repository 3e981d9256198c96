/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Segments that begin with bytes that came before: when an acknowledgement is late, a sender may send two segments again
 * as one, or a part of one before the whole of it arrives. TCP puts such a segment into its receive queue as it is
 * (tcp_data_queue, tcp_ofo_queue, net/ipv4/tcp_input.c, 6.18), and its own read skips what was read before
 * (tcp_recvmsg_locked, net/ipv4/tcp.c). But into a psock's queue goes all of it (tcp_read_skb), and would be read twice.
 *
 * So what came before is cut off. The number of the byte that comes next is noted when a socket enters the maps, and
 * with each segment: TCP's own runs ahead, as it counts those in that arrived out of order and wait behind this one.
 */
#ifndef BEELINE_OVERLAP_H
#define BEELINE_OVERLAP_H

#include "maps.h"
#include "sock.h"

/* More than this is not taken off at once (sk_skb_adjust_room, net/core/filter.c, 6.18). */
#define MAX_CUT 0xfff

/* A buffer of 17 pages of 32 KiB has no more, and some are left for when the kernel has no memory for the moment. */
#define MAX_CUTS 256

/* A socket enters the maps. Nothing is in TCP's receive queue. */
static __always_inline bool expect(struct sock *sk, __u64 cookie, __u32 seq)
{
	struct expected next = { .sk = (__u64)sk, .seq = seq };

	return !bpf_map_update_elem(&expected, &cookie, &next, BPF_ANY);
}

static __always_inline void expect_no_more(__u64 cookie)
{
	bpf_map_delete_elem(&expected, &cookie);
}

static __always_inline void leave_socks(struct sock *sk, const struct handshake *own)
{
	__u64 cookie = sock_cookie(sk), at = (__u64)sk;

	bpf_map_update_elem(&left, &cookie, &at, BPF_ANY);
	bpf_map_delete_elem(&socks, own);
	expect_no_more(cookie);
}

struct overlap {
	struct __sk_buff *skb;
	__u32 len; /* that is still there */
};

/* Returns whether it was the last one. */
static int cut_piece(__u32 nth __attribute__((unused)), struct overlap *overlap)
{
	__u32 piece = overlap->len < MAX_CUT ? overlap->len : MAX_CUT;

	if (!bpf_skb_adjust_room(overlap->skb, -(__s32)piece, 0, 0))
		overlap->len -= piece;
	return !overlap->len;
}

static __always_inline bool cut(struct __sk_buff *skb, __u32 len)
{
	struct overlap overlap = { .skb = skb, .len = len };

	bpf_loop(MAX_CUTS, cut_piece, &overlap, 0);
	return !overlap.len;
}

/* The end of both streams: the socket is closed when its last segment is in TCP's receive queue, and still on its way
 * into the psock's (tcp_fin, tcp_data_queue, net/ipv4/tcp_input.c, 6.18).
 */
static __always_inline bool last_segment_follows(struct sock *sk, int state)
{
	return state == BPF_TCP_FIN_WAIT2 && SOCK_FLAG(sk, SOCK_DONE) && sock_psock(sk);
}

static __always_inline bool was_last_segment(struct sock *sk)
{
	return READ(sock, sk, __sk_common.skc_state) == BPF_TCP_CLOSE &&
	       !READ(sock, sk, sk_receive_queue.qlen);
}

/* Cuts off what came before. If that cannot be done, nothing more may come: no byte is read twice. */
static __always_inline bool cut_overlap(struct __sk_buff *skb)
{
	__u64 cookie = bpf_get_socket_cookie(skb);
	struct expected *next = bpf_map_lookup_elem(&expected, &cookie);
	void *tcp = (void *)skb + bpf_core_field_offset(struct sk_buff, cb);
	__s32 overlap;
	bool lost;

	if (!next) /* it was reset, and what came before that is read now for the first time */
		return true;
	overlap = next->seq - READ(tcp_skb_cb, tcp, seq);
	if (overlap > 0 && !cut(skb, overlap))
		next->lost = 1;
	next->seq = READ(tcp_skb_cb, tcp, end_seq);
	lost = next->lost;
	if (was_last_segment(READ(sk_buff, skb, sk)))
		expect_no_more(cookie);
	return !lost;
}

#endif
