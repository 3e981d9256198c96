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

/* More messages than this are not counted. */
#define MAX_MESSAGES 1024

/* Bytes in the psock queue; where the kernel keeps no sum, of its first messages. */
static __always_inline __u32 count_unread(struct sk_psock *psock)
{
	struct list_head *head = &psock->ingress_msg, *at = BPF_CORE_READ(psock, ingress_msg.next);
	__u32 sum = 0;

	if (psock_counts_unread() || at == head)
		return psock_unread(psock);
	for (int i = 0; i < MAX_MESSAGES && at != head; i++) {
		struct sk_msg *msg = (void *)at - bpf_core_field_offset(struct sk_msg, list);

		sum += BPF_CORE_READ(msg, sg.size);
		at = BPF_CORE_READ(at, next);
	}
	return sum ?: 1; /* a reader was faster, but the queue was not empty */
}

/* What an iterator returns so that the read(2) ends and the next one begins with the same socket. */
#define AGAIN 1

/* Where reports wait until user space has read them. */
#define REPORTS_BYTES (4 << 20)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, REPORTS_BYTES);
} reports SEC(".maps");

static __always_inline void describe(struct sock *sk, struct end *end, struct end_record *record)
{
	struct sk_psock *psock = sock_psock(sk);

	record->end = *end;
	identify(sk, record);
	record->inode = sock_inode(sk);
	record->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	record->srtt_us = smoothed_rtt(sk);
	if (psock) {
		record->has_psock = 1;
		record->unread = count_unread(psock);
	}
}

/* Not by bpf_seq_write: a read(2) takes 32 KiB of that at most, and each looks for its place from the
 * beginning of the list, so many sockets would take time by the square of their number
 * (bpf_sk_storage_map_seq_find_next, net/core/bpf_sk_storage.c). For the same reason there are no
 * histograms where nobody asks for them: more fit into the ring buffer.
 */
static __always_inline int report(struct bpf_iter__bpf_sk_storage_map *ctx, bool never_enrolled,
				  bool tallied)
{
	struct enrolled *enrolled = ctx->value;
	struct sock *sk = ctx->sk;
	struct end_report *out;

	if (!sk || !enrolled || was_never_enrolled(&enrolled->end) != never_enrolled)
		return 0;
	out = bpf_ringbuf_reserve(&reports, tallied ? sizeof(*out) : sizeof(out->record), 0);
	if (!out)
		return AGAIN;
	__builtin_memset(&out->record, 0, sizeof(out->record));
	describe(sk, &enrolled->end, &out->record);
	if (tallied)
		out->tally = enrolled->tally;
	bpf_ringbuf_submit(out, BPF_RB_NO_WAKEUP);
	return 0;
}

/* Those that are or were enrolled. */
SEC("?iter/bpf_sk_storage_map")
int beeline_ends(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	return report(ctx, false, false);
}

/* The same, with their histograms. */
SEC("?iter/bpf_sk_storage_map")
int beeline_tallied(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	return report(ctx, false, true);
}

/* Those that wait to be for the first time. */
SEC("?iter/bpf_sk_storage_map")
int beeline_waiting(struct bpf_iter__bpf_sk_storage_map *ctx)
{
	return report(ctx, true, false);
}
