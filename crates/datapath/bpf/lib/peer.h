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

/* Whether the memory is still the socket of that cookie, and how much waits unread there. */
static __always_inline bool peer_unread(struct sock *peer, __u64 cookie, __u32 *unread)
{
	if (bpf_ksym_exists(bpf_rdonly_cast) &&
	    bpf_core_field_exists(((struct sk_psock *)0)->msg_tot_len)) {
		struct sock *sk = CAST(sock, peer);
		unsigned long data = (unsigned long)sk->sk_user_data;

		*unread = CAST(sk_psock, (void *)(data & ~SK_USER_DATA_FLAGS))->msg_tot_len;
		return sk->__sk_common.skc_cookie.counter == (__s64)cookie;
	}
	*unread = psock_unread(sock_psock(peer));
	return sock_cookie(peer) == cookie;
}

#endif
