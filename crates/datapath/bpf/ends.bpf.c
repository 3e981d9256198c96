/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reports every enrolled socket with what the kernel knows of it; works without an agent. */
#include "vmlinux.h"
#include "lib/sock.h"
#include "lib/maps.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Linux 6.18 keeps the number in the socket; before, it is in the socket's inode. */
static __always_inline __u64 sock_inode(struct sock *sk)
{
	if (bpf_core_field_exists(sk->sk_ino))
		return BPF_CORE_READ(sk, sk_ino);
	return BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

SEC("iter/bpf_sk_storage_map")
int beeline_ends(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	struct end_record record = {};
	struct end *end = ctx->value;
	struct sock *sk = ctx->sk;
	struct sk_psock *psock;

	if (!sk || !end)
		return 0;
	record.end = *end;
	record.cookie = sock_cookie(sk);
	record.cgroup_id = BPF_CORE_READ(sk, sk_cgrp_data.cgroup, kn, id);
	record.inode = sock_inode(sk);
	record.netns = sock_netns(sk);
	record.uid = BPF_CORE_READ(sk, sk_uid.val);
	record.state = BPF_CORE_READ(sk, __sk_common.skc_state);
	read_endpoints(sk, &record.endpoints);
	record.has_alarm = bpf_sk_storage_get(&alarms, sk, 0, 0) != 0;
	psock = sock_psock(sk);
	if (psock) {
		record.has_psock = 1;
		record.unread = psock_unread(psock);
	}
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}
