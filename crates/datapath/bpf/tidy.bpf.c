/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Forgets what is known of sockets that are gone without that their end was seen: one in some ten million, on some
 * kernels (6.18.44 of one build) of which it is not understood why TCP does not tell.
 */
#include "vmlinux.h"
#include "lib/maps.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline bool is_gone(__u64 sk, __u64 cookie)
{
	return sock_cookie((struct sock *)sk) != cookie;
}

/* What is known of a socket, in either map, begins with its address. */
static long look_at(struct bpf_map *map, const __u64 *cookie, const __u64 *sk,
		    void *nothing __attribute__((unused)))
{
	if (is_gone(*sk, *cookie))
		bpf_map_delete_elem(map, cookie);
	return 0;
}

/* User space runs it. */
SEC("tc")
int beeline_tidy(struct __sk_buff *nothing __attribute__((unused)))
{
	bpf_for_each_map_elem(&expected, look_at, 0, 0);
	bpf_for_each_map_elem(&left, look_at, 0, 0);
	return 0;
}
