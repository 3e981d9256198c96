/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Tells chosen sockets, with the enum reason, to redirect no more, and reports those that it tells for
 * the first time.
 */
#include "vmlinux.h"
#include "lib/chosen.h"
#include "lib/maps.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("iter/bpf_sk_storage_map")
int beeline_retire(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct end *end = ctx->value;
	struct handshake own;
	__u32 *reason;

	if (!ctx->sk || !end || end->retiring)
		return 0;
	own = end->own;
	reason = bpf_map_lookup_elem(&chosen, &own);
	if (!reason)
		return 0;
	/* One byte that no program writes while it is 0: their stores next to it are not disturbed. */
	end->retiring = *reason;
	bpf_seq_write(ctx->meta->seq, &own, sizeof(own));
	return 0;
}
