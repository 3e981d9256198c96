/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The keepalive options that keepalive.bpf.c takes of a socket for a moment. */
#ifndef BEELINE_KEEPALIVE_H
#define BEELINE_KEEPALIVE_H

#include "sock.h"

/* TCP_KEEPIDLE of Beeline, in seconds. */
#define KEEPIDLE 1

static __always_inline void set_keepidle(void *sk, int seconds)
{
	bpf_setsockopt(sk, SOL_TCP, TCP_KEEPIDLE, &seconds, sizeof(seconds));
}

static __always_inline void set_keepalive(void *sk, int on)
{
	bpf_setsockopt(sk, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
}

/* To the program, which sets its own only after that (setsockopt.bpf.c). Who calls this has the socket's lock. */
static __always_inline void give_back_keepalive(void *sk, struct end *end)
{
	if (!end->keepidle_s)
		return;
	set_keepidle(sk, end->keepidle_s);
	if (end->flags & END_KEPT)
		set_keepalive(sk, 0);
	end->flags &= ~END_KEPT;
	end->keepidle_s = 0;
}

#endif
