/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which sockets can be enrolled at all. */
#ifndef BEELINE_FIT_H
#define BEELINE_FIT_H

#include "sock.h"

/* What about this socket rules out redirection for good, if anything. */
static __always_inline enum reason unfit(struct sock *sk)
{
	if (bpf_core_field_exists(((struct tcp_sock *)sk)->is_mptcp) &&
	    READ(tcp_sock, sk, is_mptcp))
		return REASON_MPTCP;
	if (READ_BITS(sock, sk, sk_kern_sock))
		return REASON_KERNEL_SOCKET;
	if (has_ulp(sk))
		return REASON_ULP;
	if (READ_BITS(tcp_sock, sk, syn_data) || READ(tcp_sock, sk, fastopen_rsk))
		return REASON_FAST_OPEN;
	return has_option(sk) ? REASON_OPTION : REASON_NONE;
}

#endif
