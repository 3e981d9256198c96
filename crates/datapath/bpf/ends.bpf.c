/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reports enrolled sockets with what the kernel knows of them; works without an agent. */
#include "vmlinux.h"
#include "lib/maps.h"
#include "lib/sock.h"
#include "lib/storage.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

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

/* Where reports wait until user space has read them: those of one run, at least. */
#define REPORTS_BYTES (1 << 18)

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, REPORTS_BYTES);
} reports SEC(".maps");

static __always_inline void describe(struct sock *sk, struct end_record *record)
{
	struct sk_psock *psock = sock_psock(sk);

	identify(sk, record);
	record->inode = sock_inode(sk);
	record->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	record->srtt_us = smoothed_rtt(sk);
	if (psock) {
		record->has_psock = 1;
		record->unread = count_unread(psock);
	}
}

/* Of an end that may go meanwhile, if nobody keeps its socket: what was copied until then counts only if it is still there. */
static __always_inline bool describe_end(struct sock *sk, struct enrolled *enrolled, __u64 cookie,
					 struct end_report *to)
{
	__builtin_memset(&to->record, 0, sizeof(to->record));
	if (bpf_probe_read_kernel(&to->record.end, sizeof(to->record.end), &enrolled->end) ||
	    bpf_probe_read_kernel(&to->tally, sizeof(to->tally), &enrolled->tally))
		return false;
	describe(sk, &to->record);
	return !cookie || (stored_end(sk) == &enrolled->end && sock_cookie(sk) == cookie);
}

static __noinline int report(struct sock *sk, struct enrolled *enrolled, __u64 cookie)
{
	struct end_report *out = bpf_ringbuf_reserve(&reports, sizeof(*out), 0);

	if (!out)
		return 1;
	if (describe_end(sk, enrolled, cookie, out))
		bpf_ringbuf_submit(out, BPF_RB_NO_WAKEUP);
	else
		bpf_ringbuf_discard(out, BPF_RB_NO_WAKEUP);
	return 0;
}

/* It is in the maps, and is kept while it is looked at. */
static __always_inline void look_up(struct handshake *own)
{
	struct bpf_sock *sk = bpf_map_lookup_elem(&socks, own);
	struct enrolled *enrolled;
	struct tcp_sock *tp;

	if (!sk)
		return;
	enrolled = bpf_sk_storage_get(&ends, sk, 0, 0);
	tp = bpf_skc_to_tcp_sock(sk); /* whose fields can be read */
	if (enrolled && tp)
		report((struct sock *)tp, enrolled, 0);
	bpf_sk_release(sk);
}

/* It has left them, or never was in them. */
static __always_inline void read_at(struct side *side)
{
	struct sock *sk = sock_of(side);
	struct end *end = stored_end(sk);

	if (end)
		report(sk, (struct enrolled *)end, side->cookie);
}

static long answer(__u32 nth, struct __sk_buff **list)
{
	struct asked asked;

	if (bpf_skb_load_bytes(*list, nth * sizeof(asked), &asked, sizeof(asked)))
		return 1;
	if (asked.side.sk)
		read_at(&asked.side);
	else
		look_up(&asked.own);
	return 0;
}

/* User space runs it with a list, a struct asked for each, in the place of a packet. Not an iterator over the elements of
 * a map: some kernels refuse these, and each read(2) of one looks for its place from the beginning of the list
 * (bpf_sk_storage_map_seq_find_next, net/core/bpf_sk_storage.c).
 */
SEC("tc")
int beeline_ends(struct __sk_buff *list)
{
	bpf_loop(list->len / sizeof(struct asked), answer, &list, 0);
	return 0;
}
