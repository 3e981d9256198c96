/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps of the socket path. All are pinned, so that the datapath outlives the agent. */
#ifndef BEELINE_MAPS_H
#define BEELINE_MAPS_H

#include "../abi.h"
#include "../uapi.h"
#include <bpf/bpf_helpers.h>

/* User space replaces these sizes before loading. */
#define DEFAULT_CONNECTIONS 65536
#define DEFAULT_OFFERS 16384
#define EVENTS_BYTES (1 << 20)
#define STRANGERS_BYTES (1 << 14)
#define MAX_PROGRAMS 16384
#define MAX_LISTENERS 16384
#define MAX_WAITING 16384

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* Half-finished handshakes. Least recently used ones make room, so that a SYN flood costs a
 * bounded amount of memory and at worst leaves real connections on the kernel path.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DEFAULT_OFFERS);
	__type(key, struct handshake);
	__type(value, struct offer);
} offers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, DEFAULT_CONNECTIONS);
	__type(key, struct handshake);
	__type(value, struct conn);
} conns SEC(".maps");

/* Connections whose ends would be enrolled if they did not block. Those that block for good make
 * room for others.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_WAITING);
	__type(key, struct handshake);
	__type(value, struct candidate);
} waiting SEC(".maps");

/* The enrolled sockets by their own view of the handshake; user space reads socket cookies. A
 * socket in here has a psock, its messages run sk_msg, and what arrives for it stream_verdict.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * DEFAULT_CONNECTIONS);
	__type(key, struct handshake);
	__type(value, __u64);
} socks SEC(".maps");

/* Those of them that messages may be redirected to. Apart from `socks`, because a socket has to
 * stop being a target before it can be known that nothing is on its way to it, and keep its psock
 * until then.
 */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, 2 * DEFAULT_CONNECTIONS);
	__type(key, struct handshake);
	__type(value, __u64);
} targets SEC(".maps");

/* Where those are that have left `socks` and are plain TCP again, by their cookies: user space cannot find them otherwise. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * DEFAULT_CONNECTIONS);
	__type(key, __u64);
	__type(value, __u64); /* its address in the kernel */
} left SEC(".maps");

/* What comes next over the kernel path into the queue of a socket in `socks`, by its cookie: lib/overlap.h. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * DEFAULT_CONNECTIONS);
	__type(key, __u64);
	__type(value, struct expected);
} expected SEC(".maps");

/* What is known of programs; user space writes it. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_PROGRAMS);
	__type(key, struct program);
	__type(value, __u32); /* enum verdict */
} programs SEC(".maps");

/* The program that called listen, by the inode of the socket. A request socket shows no more of its
 * listener than its address.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, MAX_LISTENERS);
	__type(key, __u64);
	__type(value, struct caller);
} listeners SEC(".maps");

/* The program that called connect, until the connection is established. */
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct caller);
} callers SEC(".maps");

/* Processes of unknown programs that connect or listen. Without room one is not told: it will be the
 * next time.
 */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, STRANGERS_BYTES);
} strangers SEC(".maps");

/* The rules in their two generations, of which settings.generation tells the one in force. User space
 * makes the tables of a generation anew, and its element of `rules` before them. Sizes stand for types
 * where clang leaves these out of the BTF of objects that do not use them.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct rules);
} rules SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_HASH);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(max_entries, 1);
			__uint(key_size, sizeof(struct rule_answer));
			__uint(value_size, sizeof(struct rule_set));
		});
} rule_exact SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2);
	__type(key, __u32);
	__array(
		values, struct {
			__uint(type, BPF_MAP_TYPE_LPM_TRIE);
			__uint(map_flags, BPF_F_NO_PREALLOC);
			__uint(max_entries, 1);
			__uint(key_size, sizeof(struct rule_range));
			__uint(value_size, sizeof(struct rule_set));
		});
} rule_ranges SEC(".maps");

/* What rules say of connections that they let pass: RULE_PLACES elements for each generation. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 2 * RULE_PLACES);
	__type(key, __u32);
	__type(value, struct rule_options);
} rule_options SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct enrolled); /* programs that count nothing take it for a struct end */
} ends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct totals);
} totals SEC(".maps");

/* Which element of `hists` is a pair's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PAIR_COUNT - PAIR_FIRST);
	__type(key, struct pair);
	__type(value, __u32);
} pairs SEC(".maps");

/* Which elements are nobody's; user space fills it. */
struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, PAIR_COUNT - PAIR_FIRST);
	__type(value, __u32);
} free_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PAIR_COUNT);
	__type(key, __u32);
	__type(value, struct hists);
} hists SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, EVENTS_BYTES);
} events SEC(".maps");

/* Whoever captures puts a ring buffer of its size here, and takes it away. */
struct capture_ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct capture_ring);
} captures SEC(".maps");

/* And here the connections that it does not want, by the client's view. */
struct capture_others {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1);
	__type(key, struct handshake);
	__type(value, __u8);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct capture_others);
} uncaptured SEC(".maps");

static __always_inline struct settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct totals *get_totals(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&totals, &zero);
}

/* Per-CPU is not enough: a softirq may count on the same CPU between load and store. */
static __always_inline void add(__u64 *sum, __u64 count)
{
	__sync_fetch_and_add(sum, count);
}

#endif
