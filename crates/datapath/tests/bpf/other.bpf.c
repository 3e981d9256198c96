/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* A sock_ops program of somebody else, who asks for callbacks of every connection. */
#include "../../bpf/vmlinux.h"
#include "../../bpf/uapi.h"
#include <bpf/bpf_helpers.h>

/* include/uapi/linux/bpf.h */
#define BPF_SOCK_OPS_RETRANS_CB_FLAG (1 << 1)

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* How often it was called for an acknowledgement, and whether what it alone asks for was still asked for. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u64);
} heard SEC(".maps");

static void count(__u32 place)
{
	__u64 *times = bpf_map_lookup_elem(&heard, &place);

	if (times)
		__sync_fetch_and_add(times, 1);
}

SEC("sockops")
int listen_in(struct bpf_sock_ops *ops)
{
	switch (ops->op) {
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG |
						       BPF_SOCK_OPS_RETRANS_CB_FLAG);
		break;
	case BPF_SOCK_OPS_RTT_CB:
		count(0);
		if (ops->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_RETRANS_CB_FLAG)
			count(1);
		break;
	}
	return 1;
}
