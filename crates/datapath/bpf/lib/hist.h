/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Histograms by powers of two.
 *
 * What is counted for every message is kept with the socket, where the lock that its sender has
 * makes plain additions exact, and added to its pair of workloads when the connection is over. The
 * rest, which is rare, goes to the pair at once. A host's histograms are the sum of all pairs and of
 * all live sockets.
 */
#ifndef BEELINE_HIST_H
#define BEELINE_HIST_H

#include "maps.h"
#include "sock.h"

/* The highest value that a slot but the last one is for. */
#define HIST_MAX (1ULL << (HIST_SLOTS - 3))

/* 1 and the bits of value - 1. */
static __always_inline __u32 slot_of(__u64 value)
{
	__u32 rest, slot = 1;

	if (value == 0)
		return 0;
	if (value > HIST_MAX)
		return HIST_SLOTS - 1;
	rest = value - 1;
	for (int bits = 16; bits > 1; bits /= 2) {
		if (rest >> bits) {
			slot += bits;
			rest >>= bits;
		}
	}
	return slot + (rest >> 1 ? 2 : rest);
}

static __always_inline bool is_kept(enum hist hist)
{
	struct settings *set = get_settings();

	return set && set->histograms & 1 << hist;
}

static __always_inline struct hists *hists_of(__u32 pair)
{
	return bpf_map_lookup_elem(&hists, &pair);
}

/* What does not happen for every message has a frame of its own: the stack of sock_ops is short. */
#define RARE static __noinline __attribute__((unused))

/* Counts a value of a pair. */
RARE void record(__u32 pair, enum hist hist, __u64 value)
{
	struct hists *to = is_kept(hist) ? hists_of(pair) : 0;
	__u32 slot = slot_of(value);

	if (!to || slot >= HIST_SLOTS)
		return;
	add(&to->slots[hist][slot], 1);
	add(&to->sums[hist], value);
}

/* Counts a value of a socket whose lock is held. */
static __always_inline void tally(struct end *end, enum hist hist, __u64 value)
{
	struct tally *to = &((struct enrolled *)end)->tally;
	__u32 slot = slot_of(value);
	struct hists *sums;

	if (!is_kept(hist) || slot >= HIST_SLOTS)
		return;
	to->sums[hist] += value;
	if (++to->slots[hist][slot])
		return;
	sums = hists_of(end->pair);
	if (sums)
		add(&sums->slots[hist][slot], 1ULL << 32);
}

/* To look at the clock takes a quarter of what a message costs, so after the first ones of a socket one in
 * so many is timed.
 */
#define TIMED 8

/* Times the message before, if all was read by now: at the last read of its reader. No program runs at
 * a read, but tcp_mstamp tells when it was (tcp_rcv_space_adjust, net/ipv4/tcp_input.c, from
 * tcp_bpf_recvmsg_parser); where it does not, it is older than the message, which is not counted then.
 * A look at an empty queue counts as a read.
 */
static __always_inline void time_read(struct end *end, __u32 unread)
{
	bool starts = end->redirected_msgs <= TIMED || end->redirected_msgs % TIMED == 0;
	struct sock *peer = (struct sock *)end->peer_sk;
	__u32 now, took;

	if (!is_kept(HIST_READ) || (!starts && !end->sent_us)) {
		end->sent_us = 0;
		return;
	}
	now = bpf_ktime_get_ns() / 1000;
	if (end->sent_us && !unread) {
		took = (__u32)READ(tcp_sock, peer, tcp_mstamp) - end->sent_us;
		if (took <= now - end->sent_us)
			record(end->pair, HIST_READ, took);
	}
	end->sent_us = starts ? now ?: 1 : 0;
}

/* The connection of a socket is over: what it counted is its pair's from now on. */
RARE void settle(struct end *end, bool first)
{
	struct tally *from = &((struct enrolled *)end)->tally;
	struct hists *to = hists_of(end->pair);

	if (first)
		record(end->pair, HIST_LIFETIME,
		       (bpf_ktime_get_ns() - end->enrolled_ns) / (1000 * 1000));
	if (!to)
		return;
	for (int hist = 0; hist < HIST_OF_A_SOCKET; hist++) {
		if (!from->sums[hist] && !from->slots[hist][0])
			continue;
		add(&to->sums[hist], from->sums[hist]);
		for (int slot = 0; slot < HIST_SLOTS; slot++)
			if (from->slots[hist][slot])
				add(&to->slots[hist][slot], from->slots[hist][slot]);
	}
}

/* The element of `hists` that two workloads have. */
RARE __u32 pair_of(struct sock *client, struct sock *server)
{
	struct pair pair = { .client = sock_cgroup(client), .server = sock_cgroup(server) };
	__u32 *known = bpf_map_lookup_elem(&pairs, &pair), free;

	if (known)
		return *known;
	if (bpf_map_pop_elem(&free_pairs, &free))
		return PAIR_OTHER;
	if (!bpf_map_update_elem(&pairs, &pair, &free, BPF_NOEXIST))
		return free;
	bpf_map_push_elem(&free_pairs, &free, BPF_ANY);
	known = bpf_map_lookup_elem(&pairs, &pair);
	return known ? *known : PAIR_OTHER;
}

/* Both ends of a connection are known. */
RARE void begin_pair(struct conn *conn, struct end *end, struct sock *server, __u64 begun_ns)
{
	conn->pair = pair_of(sock_of(&conn->client), server);
	record(conn->pair, HIST_HANDSHAKE, (bpf_ktime_get_ns() - begun_ns) / 1000);
	if (end)
		end->pair = conn->pair;
}

#endif
