/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Files, as iterators over them show them. */
#ifndef BEELINE_FILE_H
#define BEELINE_FILE_H

#include "../vmlinux.h"
#include <bpf/bpf_helpers.h>

/* The TCP socket behind a file; 0 for any other. */
static __always_inline struct sock *tcp_sock_of(struct file *file)
{
	struct socket *socket = bpf_sock_from_file(file);
	struct sock *sk = socket ? socket->sk : 0;

	return sk && bpf_skc_to_tcp_sock(sk) ? sk : 0;
}

#endif
