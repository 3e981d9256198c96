/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Which connections the rules leave to the kernel path.
 *
 * Whatever their number, each thing that rules ask for is looked up once: the answer selects the set
 * of rules that accept it, and the first rule in all of these sets is the one that matches. User
 * space fills the tables (src/rules/), and evaluates them in the same way for `beeline explain`.
 */
#ifndef BEELINE_RULES_H
#define BEELINE_RULES_H

#include "maps.h"
#include "sock.h"

/* What the rules say of a connection as one of its ends sees it. */
enum opinion {
	OPINION_NONE, /* no rule matches */
	OPINION_SOCKET,
	OPINION_KERNEL,
	OPINION_UNKNOWN_WORKLOAD, /* cannot be told yet */
	OPINION_UNKNOWN_PROGRAM,
};

/* `sk` has the addresses and `owner` the identity: for a request socket, that is its listener. */
static __always_inline void read_facts(struct sock *sk, __u16 family, struct sock *owner,
				       struct facts *to)
{
	to->cgroup = sock_cgroup(owner);
	to->uid = READ(sock, owner, sk_uid.val);
	read_endpoints_of(sk, family, &to->endpoints);
}

static __always_inline void keep(struct rule_set *left, struct rule_set *accepting)
{
	for (int i = 0; i < RULE_WORDS; i++)
		left->words[i] &= accepting ? accepting->words[i] : 0;
}

static __always_inline struct rule_set *of_cgroup(void *exact, __u64 dimension, __u64 cgroup)
{
	struct rule_answer key = { .dimension = dimension, .cgroup = cgroup };

	return bpf_map_lookup_elem(exact, &key);
}

static __always_inline struct rule_set *of_program(void *exact, __u64 dimension,
						   struct program *program)
{
	struct rule_answer key = { .dimension = dimension, .program = *program };

	return bpf_map_lookup_elem(exact, &key);
}

/* A number of 32 bits; the entry for all answers of the dimension makes sure that one is found. */
static __always_inline struct rule_set *of_number(void *ranges, __u32 dimension, __u32 number)
{
	struct rule_range key = { .prefix = 64, .dimension = dimension };

	key.bits[0] = bpf_htonl(number);
	return bpf_map_lookup_elem(ranges, &key);
}

static __always_inline struct rule_set *of_address(void *ranges, __u32 dimension, __u16 family,
						   __u32 *ip)
{
	struct rule_range key = { .prefix = 32 + 128, .dimension = dimension };

	if (family == AF_INET6) {
		__builtin_memcpy(key.bits, ip, sizeof(key.bits));
	} else {
		key.bits[2] = bpf_htonl(0xffff);
		key.bits[3] = ip[0];
	}
	return bpf_map_lookup_elem(ranges, &key);
}

/* Notes how the rule at this place wants a connection: of two, the stricter counts. */
static __always_inline void heed(struct offer *offer, __u32 place, __u32 slot)
{
	__u32 at = slot * RULE_PLACES + place;
	struct rule_options *one = bpf_map_lookup_elem(&rule_options, &at);

	if (!one)
		return;
	if (one->queue_limit && (!offer->queue_limit || one->queue_limit < offer->queue_limit))
		offer->queue_limit = one->queue_limit;
	if (one->at_once)
		offer->at_once = 1;
}

/* How many bits are below the lowest that is set. Without branches: the verifier would follow each. */
static __always_inline __u32 below_lowest(__u64 word)
{
	__u64 ones = (word & -word) - 1;

	ones -= ones >> 1 & 0x5555555555555555;
	ones = (ones & 0x3333333333333333) + (ones >> 2 & 0x3333333333333333);
	ones = (ones + (ones >> 4)) & 0x0f0f0f0f0f0f0f0f;
	return ones * 0x0101010101010101 >> 56;
}

/* Of the rules that are left, the first; how it wants the connection is noted. */
static __always_inline enum opinion first_of(struct rule_set *left, struct rules *these, __u32 slot,
					     struct offer *offer)
{
	for (int i = 0; i < RULE_WORDS; i++) {
		__u64 word = left->words[i];

		if (!word)
			continue;
		if (these->kernel.words[i] & word & -word)
			return OPINION_KERNEL;
		heed(offer, i * 64 + below_lowest(word), slot);
		return OPINION_SOCKET;
	}
	return OPINION_NONE;
}

static __always_inline bool is_empty(struct rule_set *left)
{
	__u64 any = 0;

	for (int i = 0; i < RULE_WORDS; i++)
		any |= left->words[i];
	return !any;
}

static __always_inline bool asks(struct rules *these, enum dimension dimension)
{
	return these->dimensions & 1 << dimension;
}

static __always_inline void keep_ranges(struct rule_set *left, struct rules *these, void *ranges,
					struct facts *local, struct facts *remote)
{
	struct endpoints *at = &local->endpoints;

	if (asks(these, LOCAL_USER))
		keep(left, of_number(ranges, LOCAL_USER, local->uid));
	if (asks(these, REMOTE_USER))
		keep(left, of_number(ranges, REMOTE_USER, remote->uid));
	if (asks(these, LOCAL_PORT))
		keep(left, of_number(ranges, LOCAL_PORT, (__u32)at->local_port << 16));
	if (asks(these, REMOTE_PORT))
		keep(left, of_number(ranges, REMOTE_PORT, (__u32)at->remote_port << 16));
	if (asks(these, LOCAL_ADDRESS))
		keep(left, of_address(ranges, LOCAL_ADDRESS, at->family, at->local_ip));
	if (asks(these, REMOTE_ADDRESS))
		keep(left, of_address(ranges, REMOTE_ADDRESS, at->family, at->remote_ip));
}

/* false when an end's program is not in the tables yet. */
static __always_inline bool keep_programs(struct rule_set *left, struct rules *these, void *exact,
					  struct facts *local, struct facts *remote)
{
	struct rule_set *found;

	if (asks(these, LOCAL_PROGRAM)) {
		found = of_program(exact, LOCAL_PROGRAM, &local->program);
		if (!found)
			return false;
		keep(left, found);
	}
	if (asks(these, REMOTE_PROGRAM)) {
		found = of_program(exact, REMOTE_PROGRAM, &remote->program);
		if (!found)
			return false;
		keep(left, found);
	}
	return true;
}

/* false when an end's cgroup is not. */
static __always_inline bool keep_workloads(struct rule_set *left, struct rules *these, void *exact,
					   struct facts *local, struct facts *remote)
{
	struct rule_set *found;

	if (asks(these, LOCAL_WORKLOAD)) {
		found = of_cgroup(exact, LOCAL_WORKLOAD, local->cgroup);
		if (!found)
			return false;
		keep(left, found);
	}
	if (asks(these, REMOTE_WORKLOAD)) {
		found = of_cgroup(exact, REMOTE_WORKLOAD, remote->cgroup);
		if (!found)
			return false;
		keep(left, found);
	}
	return true;
}

/* Whether the tables in force tell what they have to of a program. */
static __noinline int rules_know(struct program *program)
{
	struct settings *set = get_settings();
	__u32 slot = set ? set->generation & 1 : 0;
	struct rules *these = bpf_map_lookup_elem(&rules, &slot);
	void *exact = bpf_map_lookup_elem(&rule_exact, &slot);

	if (!set || !set->judging || !these || !exact || !program)
		return true;
	return (!asks(these, LOCAL_PROGRAM) || of_program(exact, LOCAL_PROGRAM, program)) &&
	       (!asks(these, REMOTE_PROGRAM) || of_program(exact, REMOTE_PROGRAM, program));
}

/* What the rules of a slot say of a connection as its end `local` sees it. An end's addresses are its
 * own view of them, because NAT may lie between the two.
 */
static __noinline int judge(struct facts *local, struct facts *remote, __u32 slot,
			    struct offer *offer)
{
	struct rules *these = bpf_map_lookup_elem(&rules, &slot);
	void *ranges = bpf_map_lookup_elem(&rule_ranges, &slot);
	void *exact = bpf_map_lookup_elem(&rule_exact, &slot);
	struct rule_set left;

	if (!these || !ranges || !exact)
		return OPINION_UNKNOWN_WORKLOAD;
	left = these->all;
	keep_ranges(&left, these, ranges, local, remote);
	if (is_empty(&left))
		return OPINION_NONE;
	if (!keep_programs(&left, these, exact, local, remote))
		return OPINION_UNKNOWN_PROGRAM;
	if (!keep_workloads(&left, these, exact, local, remote))
		return OPINION_UNKNOWN_WORKLOAD;
	return first_of(&left, these, slot, offer);
}

static __always_inline enum reason reason_of(int opinion)
{
	switch (opinion) {
	case OPINION_KERNEL:
		return REASON_EXCLUDED;
	case OPINION_UNKNOWN_PROGRAM:
		return REASON_UNKNOWN_PROGRAM;
	case OPINION_UNKNOWN_WORKLOAD:
		return REASON_UNKNOWN_WORKLOAD;
	default:
		return REASON_NONE;
	}
}

/* Why the rules leave a connection to the kernel path, if so; else how they want it is noted. An
 * exclusion by either end is absolute.
 */
static __always_inline enum reason ruled_out(struct facts *client, struct offer *offer, __u32 slot)
{
	struct rules *these = bpf_map_lookup_elem(&rules, &slot);
	struct facts *server = &offer->facts;
	int said = judge(client, server, slot, offer),
	    answered = judge(server, client, slot, offer);

	if (said == OPINION_KERNEL || answered == OPINION_KERNEL)
		return REASON_EXCLUDED;
	if (said == OPINION_NONE && answered == OPINION_NONE) {
		heed(offer, NO_RULE, slot);
		return these && these->otherwise_kernel ? REASON_EXCLUDED : REASON_NONE;
	}
	return reason_of(said) ?: reason_of(answered);
}

#endif
