/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Files, as iterators over them show them. */
#ifndef BEELINE_FILE_H
#define BEELINE_FILE_H

#include "../uapi.h"
#include "sock.h"

static __always_inline bool is_tcp(struct sock *sk)
{
	__u16 family = READ(sock, sk, __sk_common.skc_family);

	return (family == AF_INET || family == AF_INET6) &&
	       READ(sock, sk, sk_type) == SOCK_STREAM && READ(sock, sk, sk_protocol) == IPPROTO_TCP;
}

/* The TCP socket behind a file; 0 for any other. Some kernels let no helper have what a structure points to that
 * another helper returned, so that it is only good for reading.
 */
static __always_inline struct sock *tcp_sock_of(struct file *file)
{
	struct socket *socket = bpf_sock_from_file(file);
	struct sock *sk = socket ? socket->sk : 0;

	return sk && is_tcp(sk) ? sk : 0;
}

#endif
