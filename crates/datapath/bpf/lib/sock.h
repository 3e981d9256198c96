/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Facts about kernel sockets, also of memory that may have been freed. */
#ifndef BEELINE_SOCK_H
#define BEELINE_SOCK_H

#include "../abi.h"
#include "read.h"
#include <bpf/bpf_endian.h>

/* The low bits of sk_user_data are flags: SK_USER_DATA_PTRMASK, include/net/sock.h. The third
 * tells that the pointer is a psock (SK_USER_DATA_PSOCK, 5.17+; earlier the pointer of a TCP
 * socket that is in our map can be nothing else).
 */
#define SK_USER_DATA_FLAGS 7UL

/* Whether one of enum sock_flags is set. */
#define SOCK_FLAG(sk, flag) \
	(READ(sock, sk, __sk_common.skc_flags) >> bpf_core_enum_value(enum sock_flags, flag) & 1)

/* sk_max_pacing_rate of who did not set it */
#define UNPACED (~0UL)

/* What a sock_ops program has to hear of an enrolled socket. */
#define CALLBACKS                                                \
	(BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_RTT_CB_FLAG | \
	 BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG)

/* All but that of its end cost something with each packet, and stop when it is plain TCP again. A flag stands for all
 * sock_ops programs, so not if another one has asked before, as those of cgroups further down and of earlier
 * attachments do (compute_effective_progs, kernel/bpf/cgroup.c).
 */
static __always_inline __u8 overheard(int flags)
{
	return flags & (CALLBACKS & ~BPF_SOCK_OPS_STATE_CB_FLAG) ? END_OVERHEARD : 0;
}

/* The socket that an iterator shows, unless it is over or only a request; the iterator has its lock. */
static __always_inline struct tcp_sock *shown(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;

	return common ? bpf_skc_to_tcp_sock(common) : 0;
}

/* Lets sock_ops programs hear more of a socket, whose lock the caller has. From Linux 6.12 on. */
static __always_inline bool call_back(struct tcp_sock *tp, int more)
{
	int flags = READ(tcp_sock, tp, bpf_sock_ops_cb_flags) | more;

	return !bpf_setsockopt(tp, SOL_TCP, TCP_BPF_SOCK_OPS_CB_FLAGS, &flags, sizeof(flags));
}

static __always_inline struct handshake mirror(struct handshake h)
{
	return (struct handshake){ .snd_nxt = h.rcv_nxt, .rcv_nxt = h.snd_nxt };
}

static __always_inline bool is_client(const struct end *end)
{
	return end->flags & END_CLIENT;
}

static __always_inline struct sock *sock_of(const struct side *side)
{
	return (struct sock *)side->sk;
}

static __always_inline struct side *peer_side(struct conn *conn, const struct end *end)
{
	return is_client(end) ? &conn->server : &conn->client;
}

static __always_inline bool was_never_enrolled(const struct end *end)
{
	return (end->flags & (END_WAITING | END_RETURNS)) == END_WAITING;
}

static __always_inline struct handshake client_view(struct end *end)
{
	return is_client(end) ? end->own : mirror(end->own);
}

/* The kernel's socket behind a sock_ops context; also where the context offers none, as for a
 * request socket.
 */
static __always_inline struct sock *kern_sock(struct bpf_sock_ops *ops)
{
	return READ(bpf_sock_ops_kern, ops, sk);
}

/* Same value as bpf_get_socket_cookie() once that was called for the socket. */
static __always_inline __u64 sock_cookie(struct sock *sk)
{
	return READ(sock, sk, __sk_common.skc_cookie.counter);
}

/* The number of its inode, which no other socket has while it lives; 0 if it has none. Linux 6.18 keeps it in the socket;
 * before, it is beside the struct socket (SOCK_INODE, include/net/sock.h). Its file would tell, but sockets of the kernel
 * have none.
 */
static __always_inline __u64 sock_inode(struct sock *sk)
{
	struct socket_alloc *both;

	if (bpf_core_field_exists(sk->sk_ino))
		return BPF_CORE_READ(sk, sk_ino);
	both = (void *)BPF_CORE_READ(sk, sk_socket);
	return BPF_CORE_READ(both, vfs_inode.i_ino);
}

/* Whether reads of the socket may sleep; one that was not accepted yet has no file. */
static __always_inline bool is_blocking(struct sock *sk)
{
	struct socket *socket = READ(sock, sk, sk_socket);
	struct file *file = socket ? READ(socket, socket, file) : 0;

	return file && !(READ(file, file, f_flags) & O_NONBLOCK);
}

/* Reads of the socket are to heed an option that tcp_bpf_recvmsg does not know: SO_RCVLOWAT,
 * SO_PEEK_OFF, TCP_INQ, SO_TIMESTAMP, SO_TIMESTAMPING; or sends one that tcp_bpf_sendmsg does not
 * know or that acts on segments: MSG_ZEROCOPY, SO_TIMESTAMPING again, SO_MAX_PACING_RATE; or what
 * arrives has to pass a program of SO_ATTACH_FILTER.
 */
static __always_inline bool has_option(struct sock *sk)
{
	unsigned long flags = 1UL << bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY);

	/* SO_TIMESTAMP */
	flags |= 1UL << bpf_core_enum_value(enum sock_flags, SOCK_RCVTSTAMP);
	return READ(sock, sk, sk_rcvlowat) > 1 || READ(sock, sk, sk_peek_off) >= 0 ||
	       READ_BITS(tcp_sock, sk, recvmsg_inq) ||
	       READ(sock, sk, __sk_common.skc_flags) & flags || READ_BITS(sock, sk, sk_tsflags) ||
	       READ(sock, sk, sk_max_pacing_rate) != UNPACED || READ(sock, sk, sk_filter);
}

/* An upper layer protocol, as kernel TLS: it has replaced the socket's calls, for good. */
static __always_inline bool has_ulp(struct sock *sk)
{
	return READ(tcp_sock, sk, inet_conn.icsk_ulp_ops);
}

static __always_inline struct sk_psock *sock_psock(struct sock *sk)
{
	unsigned long data = (unsigned long)READ(sock, sk, sk_user_data);

	return (struct sk_psock *)(data & ~SK_USER_DATA_FLAGS);
}

static __always_inline bool psock_counts_unread(void)
{
	return bpf_core_field_exists(((struct sk_psock *)0)->msg_tot_len);
}

/* Bytes that wait in the socket's psock queue. Where the kernel keeps no count, tells only whether
 * there are any: 0 or 1.
 */
static __always_inline __u32 psock_unread(struct sk_psock *psock)
{
	if (psock_counts_unread())
		return READ(sk_psock, psock, msg_tot_len);
	return READ(sk_psock, psock, ingress_msg.next) != &psock->ingress_msg;
}

static __always_inline void read_endpoints_of(struct sock *sk, __u16 family, struct endpoints *to)
{
	to->family = family;
	to->local_port = READ(sock, sk, __sk_common.skc_num);
	to->remote_port = bpf_ntohs(READ(sock, sk, __sk_common.skc_dport));
	if (to->family == AF_INET6) {
		BPF_CORE_READ_INTO(&to->local_ip, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&to->remote_ip, sk, __sk_common.skc_v6_daddr);
	} else {
		to->local_ip[0] = READ(sock, sk, __sk_common.skc_rcv_saddr);
		to->remote_ip[0] = READ(sock, sk, __sk_common.skc_daddr);
	}
}

static __always_inline void read_endpoints(struct sock *sk, struct endpoints *to)
{
	read_endpoints_of(sk, READ(sock, sk, __sk_common.skc_family), to);
}

static __always_inline __u64 sock_cgroup(struct sock *sk)
{
	struct cgroup *cgroup = READ(sock, sk, sk_cgrp_data.cgroup);
	struct kernfs_node *node = READ(cgroup, cgroup, kn);

	return READ(kernfs_node, node, id);
}

static __always_inline __u32 sock_netns(struct sock *sk)
{
	struct net *net = READ(sock, sk, __sk_common.skc_net.net);

	return READ(net, net, ns.inum);
}

/* Which socket it is, and what rules may ask of it but its program. */
static __always_inline void identify(struct sock *sk, struct end_record *record)
{
	record->cookie = sock_cookie(sk);
	record->cgroup_id = sock_cgroup(sk);
	record->netns = sock_netns(sk);
	record->uid = READ(sock, sk, sk_uid.val);
	read_endpoints(sk, &record->endpoints);
}

/* Microseconds, of the kernel path. */
static __always_inline __u32 smoothed_rtt(struct sock *sk)
{
	return READ(tcp_sock, sk, srtt_us) >> 3;
}

#endif
