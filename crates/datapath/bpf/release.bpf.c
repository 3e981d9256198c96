/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Takes chosen sockets, to which nothing is redirected any more and which redirect nothing, out of
 * the maps as soon as nothing waits in their queues. Iterators over TCP
 * sockets hold the lock of each (bpf_iter_tcp_seq_show, net/ipv4/tcp_ipv4.c, 5.15+), so that no
 * packet comes between the look and the removal. They see one network namespace: that of the thread
 * which runs them.
 */
#include "vmlinux.h"
#include "lib/chosen.h"
#include "lib/keepalive.h"
#include "lib/maps.h"
#include "lib/overlap.h"
#include "lib/rest.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("iter/tcp")
int beeline_release(struct bpf_iter__tcp *ctx)
{
	struct tcp_sock *tp = shown(ctx);
	struct handshake own;
	struct end *end;
	struct sock *sk;

	if (!tp)
		return 0;
	sk = (struct sock *)tp;
	end = bpf_sk_storage_get(&ends, tp, 0, 0);
	if (!end)
		return 0;
	own = end->own;
	if (!bpf_map_lookup_elem(&chosen, &own) || !sock_psock(sk))
		return 0;
	give_back_keepalive(tp, end);
	/* The owner of the lock is this iterator, which is inside no call. */
	if (may_leave(sk, 0))
		leave_socks(sk, &own);
	return 0;
}
