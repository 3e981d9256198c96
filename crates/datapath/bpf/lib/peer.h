/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Looking at the other end of a connection from a sender's message.
 *
 * The peer's struct sock is known by its address alone, and may be gone: every read here survives
 * that, and whoever draws a conclusion compares the cookie first. bpf_rdonly_cast (Linux 6.2)
 * makes such reads plain loads; elsewhere they are fault-safe copies.
 */
#ifndef BEELINE_PEER_H
#define BEELINE_PEER_H

#include "sock.h"

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAST(type, pointer) \
	((struct type *)bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(struct type)))

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
	struct sk_psock *psock;

	if (bpf_ksym_exists(bpf_rdonly_cast) && psock_counts_unread()) {
		struct sock *sk = CAST(sock, peer);
		unsigned long data = (unsigned long)sk->sk_user_data;

		*unread = CAST(sk_psock, (void *)(data & ~SK_USER_DATA_FLAGS))->msg_tot_len;
		return sk->__sk_common.skc_cookie.counter == (__s64)end->peer_cookie;
	}
	psock = sock_psock(peer);
	*unread = psock_counts_unread() ? psock_unread(psock) : unread_at_most(end, psock);
	return sock_cookie(peer) == end->peer_cookie;
}

/* Whether the peer's program has said that it reads no more. */
static __always_inline bool peer_shut_reading(struct sock *peer)
{
	if (bpf_ksym_exists(bpf_rdonly_cast))
		return CAST(sock, peer)->sk_shutdown & RCV_SHUTDOWN;
	return BPF_CORE_READ(peer, sk_shutdown) & RCV_SHUTDOWN;
}

/* What waits redirected takes room in the reader's receive buffer (bpf_tcp_ingress since Linux 6.13,
 * net/ipv4/tcp_bpf.c). Without any left TCP drops what comes over the kernel path, although its window
 * allowed it (tcp_data_queue, net/ipv4/tcp_input.c), and the sender waits for a timeout of 200 ms or
 * more. So this much may wait and leave room for the window: half of a buffer that the program chose,
 * three quarters of what the kernel lets the buffer grow to.
 */
static __always_inline __u32 largest_receive_buffer(struct sock *address)
{
	if (bpf_ksym_exists(bpf_rdonly_cast)) {
		struct net *net = CAST(sock, address)->__sk_common.skc_net.net;

		return CAST(net, net)->ipv4.sysctl_tcp_rmem[2] / 4U * 3;
	}
	return BPF_CORE_READ(address, __sk_common.skc_net.net, ipv4.sysctl_tcp_rmem[2]) / 4 * 3;
}

/* SO_RCVBUF asks for less than these bytes; the kernel doubles what is asked for (socket(7)). */
static __always_inline bool is_more_than_chosen(struct sock *address, __u32 bytes)
{
	if (bpf_ksym_exists(bpf_rdonly_cast)) {
		struct sock *sk = CAST(sock, address);

		return BPF_CORE_READ_BITFIELD(sk, sk_userlocks) & SOCK_RCVBUF_LOCK &&
		       bytes > (__u32)sk->sk_rcvbuf / 2;
	}
	return BPF_CORE_READ_BITFIELD_PROBED(address, sk_userlocks) & SOCK_RCVBUF_LOCK &&
	       bytes > (__u32)BPF_CORE_READ(address, sk_rcvbuf) / 2;
}

/* As is_blocking(), for every message. */
static __always_inline bool blocks(struct sock *sk)
{
	struct socket *socket;
	struct file *file;

	if (!bpf_ksym_exists(bpf_rdonly_cast))
		return is_blocking(sk);
	socket = CAST(sock, sk)->sk_socket;
	file = socket ? CAST(socket, socket)->file : 0;
	return file && !(CAST(file, file)->f_flags & O_NONBLOCK);
}

/* As has_option(), for every message. */
static __always_inline bool heeds_option(struct sock *address)
{
	struct tcp_sock *tp;
	struct sock *sk;

	if (!bpf_ksym_exists(bpf_rdonly_cast))
		return has_option(address);
	sk = CAST(sock, address);
	tp = CAST(tcp_sock, address);
	return sk->sk_rcvlowat > 1 || sk->sk_peek_off >= 0 ||
	       BPF_CORE_READ_BITFIELD(tp, recvmsg_inq) ||
	       sk->__sk_common.skc_flags >> bpf_core_enum_value(enum sock_flags, SOCK_ZEROCOPY) & 1;
}

#endif
