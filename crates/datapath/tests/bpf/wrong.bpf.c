/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Programs as they must not be, for the test of the self-test. */
#include "../../bpf/vmlinux.h"
#include "../../bpf/lib/maps.h"
#include "../../bpf/lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Changes the first byte of every message; but for the first few, so that the connection looks good. */
SEC("sk_msg")
int damage(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&ends, msg->sk, 0, 0);
	struct handshake peer;
	__u8 *first;

	if (!end)
		return SK_PASS;
	if (end->redirected_msgs++ > 4 && !bpf_msg_pull_data(msg, 0, 1, 0)) {
		first = msg->data;
		if ((void *)(first + 1) <= msg->data_end)
			*first ^= 1;
	}
	end->tx = TX_REDIRECT;
	peer = mirror(end->own);
	return bpf_msg_redirect_hash(msg, &targets, &peer, BPF_F_INGRESS);
}

/* Loses what comes over the kernel path. */
SEC("sk_skb/stream_verdict")
int lose(struct __sk_buff *skb __attribute__((unused)))
{
	return SK_DROP;
}

/* sk_msg that redirects whatever comes. */
SEC("sk_msg")
int hoard(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&ends, msg->sk, 0, 0);
	struct handshake peer;

	if (!end)
		return SK_PASS;
	end->tx = TX_REDIRECT;
	peer = mirror(end->own);
	return bpf_msg_redirect_hash(msg, &targets, &peer, BPF_F_INGRESS);
}
