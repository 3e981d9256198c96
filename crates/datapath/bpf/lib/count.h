/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Counting and telling: per-CPU sums, and trace events while somebody reads them. */
#ifndef BEELINE_COUNT_H
#define BEELINE_COUNT_H

#include "maps.h"
#include "sock.h"

static __always_inline void count_reason(enum reason reason)
{
	struct totals *sums = get_totals();

	if (sums && reason < REASON_COUNT)
		add(&sums->reasons[reason], 1);
}

/* Out of line: events are rare, and a sock_ops program sends several kinds of them. */
static __noinline int emit(struct sock *sk, struct end *end, __u32 kind, __u32 reason)
{
	struct settings *set = get_settings();
	struct totals *sums = get_totals();
	struct event *event;

	if (!set || !sums || !set->tracing)
		return 0;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		add(&sums->lost_events, 1);
		return 0;
	}
	__builtin_memset(event, 0, sizeof(*event));
	event->at_ns = bpf_ktime_get_ns();
	event->cookie = sock_cookie(sk);
	event->kind = kind;
	event->reason = reason;
	event->netns = sock_netns(sk);
	if (end) {
		event->own = end->own;
		event->is_client = is_client(end);
		event->bytes = end->redirected_bytes;
	}
	read_endpoints(sk, &event->endpoints);
	bpf_ringbuf_submit(event, 0);
	return 0;
}

#endif
