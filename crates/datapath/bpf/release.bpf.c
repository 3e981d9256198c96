/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Takes chosen sockets out of the maps as soon as nothing waits in their queues. Iterators over TCP
 * sockets hold the lock of each (bpf_iter_tcp_seq_show, net/ipv4/tcp_ipv4.c, 5.15+), so that no
 * packet comes between the look and the removal. They see one network namespace: that of the thread
 * which runs them.
 */
#include "vmlinux.h"
#include "lib/maps.h"
#include "lib/rest.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* The handshakes, as their own ends see them, of sockets that nothing is redirected to any more, and
 * that redirect nothing. User space sizes and fills it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct handshake);
	__type(value, __u32);
} chosen SEC(".maps");

SEC("iter/tcp")
int beeline_release(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct handshake own;
	struct tcp_sock *tp;
	struct end *end;
	struct sock *sk;

	if (!common)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	sk = (struct sock *)tp;
	end = bpf_sk_storage_get(&ends, tp, 0, 0);
	if (!end)
		return 0;
	own = end->own;
	if (!bpf_map_lookup_elem(&chosen, &own) || !sock_psock(sk))
		return 0;
	bpf_map_delete_elem(&targets, &own);
	if (may_leave(sk, MAPS_OF_A_LEAVING_SOCKET) &&
	    (!is_blocking(sk) || inside(sk, MAPS_OF_A_LEAVING_SOCKET) == 0))
		bpf_map_delete_elem(&socks, &own);
	return 0;
}
