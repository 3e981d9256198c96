/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells chosen sockets that are in the maps, with the enum reason, to redirect no more, and counts those that it tells
 * for the first time.
 */
#include "vmlinux.h"
#include "lib/chosen.h"
#include "lib/maps.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static long tell(struct bpf_map *map __attribute__((unused)), const struct handshake *own,
		 const __u32 *reason, __u32 *told)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&socks, own);
	struct end *end;

	if (!sk)
		return 0;
	end = bpf_sk_storage_get(&ends, sk, 0, 0);
	if (end && !end->retiring) {
		/* One byte that no program writes while it is 0: their stores next to it are not disturbed. */
		end->retiring = *reason;
		*told += 1;
	}
	bpf_sk_release(sk);
	return 0;
}

/* User space runs it; returns how many were told. Not an iterator over the sockets, which would wait for their locks. */
SEC("tc")
int beeline_retire(struct __sk_buff *nothing __attribute__((unused)))
{
	__u32 told = 0;

	bpf_for_each_map_elem(&chosen, tell, &told, 0);
	return told;
}
