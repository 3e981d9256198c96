/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * A segment now and then for connections whose data is redirected, so that connection tracking and NAT
 * do not forget them: their FIN, and all that comes after a detach, has to find its way.
 *
 * TCP sends a keepalive at once when TCP_KEEPIDLE is less than the time since the last segment came
 * (tcp_sock_set_keepidle_locked, tcp_keepalive_timer, net/ipv4/tcp_timer.c, 6.18). So the options are
 * Beeline's for a moment: one program sets them, and another gives the program's own back. Iterators over
 * TCP sockets hold the lock of each, and may call bpf_setsockopt from 5.15 on.
 */
#include "vmlinux.h"
#include "lib/keepalive.h"
#include "lib/maps.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool has_redirected(struct end *end)
{
	return (__u32)end->redirected_msgs != end->kept_msgs;
}

static __always_inline void begin(struct tcp_sock *tp, struct end *end, int own)
{
	end->kept_msgs = end->redirected_msgs;
	end->keepidle_s = own;
	if (!SOCK_FLAG(tp, SOCK_KEEPOPEN)) {
		end->flags |= END_KEPT;
		set_keepalive(tp, 1);
	}
	set_keepidle(tp, KEEPIDLE);
}

static __always_inline int look(struct tcp_sock *tp, bool begins)
{
	struct settings *set = get_settings();
	struct end *end;
	int now;

	/* An orphan's timer for keepalives is that of its end. */
	if (!tp || !set || !READ(sock, tp, sk_socket))
		return 0;
	end = bpf_sk_storage_get(&ends, tp, 0, 0);
	if (!end)
		return 0;
	if (!begins)
		give_back_keepalive(tp, end);
	else if (!end->keepidle_s && has_redirected(end) && set->mode == MODE_ON &&
		 !bpf_getsockopt(tp, SOL_TCP, TCP_KEEPIDLE, &now, sizeof(now)))
		begin(tp, end, now);
	return 0;
}

SEC("iter/tcp")
int beeline_keepalive(struct bpf_iter__tcp *ctx)
{
	return look(shown(ctx), true);
}

SEC("iter/tcp")
int beeline_keepalive_over(struct bpf_iter__tcp *ctx)
{
	return look(shown(ctx), false);
}
