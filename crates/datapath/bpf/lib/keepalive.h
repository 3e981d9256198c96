/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The keepalive options that keepalive.bpf.c takes of a socket for a moment. */
#ifndef BEELINE_KEEPALIVE_H
#define BEELINE_KEEPALIVE_H

#include "sock.h"

/* TCP_KEEPIDLE of Beeline, in seconds. */
#define KEEPIDLE 1

static __always_inline void set_keepidle(struct tcp_sock *tp, int seconds)
{
	bpf_setsockopt(tp, SOL_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
}

static __always_inline void set_keepalive(struct tcp_sock *tp, int on)
{
	bpf_setsockopt(tp, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* To the program, which has set none meanwhile; for iterators over TCP sockets. */
static __always_inline void give_back_keepalive(struct tcp_sock *tp, struct end *end)
{
	int now;

	if (!end->keepidle_s || bpf_getsockopt(tp, SOL_TCP, TCP_KEEPIDLE, &now, sizeof(now)))
		return;
	if (now == KEEPIDLE)
		set_keepidle(tp, end->keepidle_s);
	if (end->flags & END_KEPT)
		set_keepalive(tp, 0);
	end->flags &= ~END_KEPT;
	end->keepidle_s = 0;
}

#endif
