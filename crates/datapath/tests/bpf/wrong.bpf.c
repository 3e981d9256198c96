/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* sk_msg as it must not be, for the test of the self-test. */
#include "../../bpf/vmlinux.h"
#include "../../bpf/lib/maps.h"
#include "../../bpf/lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

__u32 messages;

/* Every second message goes to the peer's psock queue and passes the one before it, which takes the
 * kernel path. The first few are in order, so that the connection looks good.
 */
SEC("sk_msg")
int disorder(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&ends, msg->sk, 0, 0);
	struct handshake peer;

	if (!end || (end->redirected_msgs++ > 4 && __sync_fetch_and_add(&messages, 1) % 2))
		return SK_PASS;
	end->tx = TX_REDIRECT;
	peer = mirror(end->own);
	return bpf_msg_redirect_hash(msg, &targets, &peer, BPF_F_INGRESS);
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
