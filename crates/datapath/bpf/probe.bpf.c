/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that do nothing, to find out which kinds this kernel takes. src/probe/tracing.rs loads
 * each alone and attaches it for a moment: to a function that only the kernel's own BPF tests call
 * (net/bpf/test_run.c), and to the LSM hook for setting the clock. src/probe/redirect.rs uses the
 * last one on two sockets of its own.
 */
#include "uapi.h"
#include <bpf/bpf_helpers.h>

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("?fentry/bpf_fentry_test1")
int probe_fentry(void *ctx)
{
	(void)ctx;
	return 0;
}

SEC("?lsm/settime")
int probe_lsm(void *ctx)
{
	(void)ctx;
	return 0; /* allow */
}

SEC("?kprobe/bpf_fentry_test1")
int probe_kprobe(void *ctx)
{
	(void)ctx;
	return 0;
}

/* Keys of `probe_socks`; src/probe/redirect.rs has the same. */
enum {
	SENDER,
	RECEIVER,
};

struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, __u32);
} probe_socks SEC(".maps");

SEC("?sk_msg")
int probe_redirect(struct sk_msg_md *msg)
{
	__u32 to = RECEIVER;

	return bpf_msg_redirect_hash(msg, &probe_socks, &to, BPF_F_INGRESS);
}
