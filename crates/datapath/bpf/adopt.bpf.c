/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Enrols connections that were local and fit from the beginning, but for an end that blocked, once
 * neither end does any more. A program may connect first and call fcntl later, and so may a server.
 * And enrols those again that left for their small writes, after some time and when they are at rest.
 *
 * Iterators over TCP sockets hold the lock of each, see release.bpf.c. The client's end comes first,
 * so that whoever finds both in `conns` finds both in the maps.
 */
#include "vmlinux.h"
#include "lib/count.h"
#include "lib/fit.h"
#include "lib/hist.h"
#include "lib/maps.h"
#include "lib/overlap.h"
#include "lib/rest.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* In which something is ready at the same time. */
#define MAX_NAMESPACES 4096

/* It was accepted, is in use, and does not block. */
static __always_inline bool is_ready(struct side *side)
{
	struct sock *sk = sock_of(side);

	return sk && sock_cookie(sk) == side->cookie &&
	       READ(sock, sk, __sk_common.skc_state) == BPF_TCP_ESTABLISHED &&
	       BPF_CORE_READ(sk, sk_socket, file) && !is_blocking(sk);
}

/* Nothing that it sent or got is on its way or waits. A stream hardly ever is. */
static __always_inline bool is_at_rest(struct sock *sk)
{
	return READ(tcp_sock, sk, write_seq) == READ(tcp_sock, sk, snd_una) &&
	       READ(sock, sk, sk_receive_queue.qlen) == 0;
}

/* What other rules said when the connection began does not hold any more, until the agent has judged
 * it anew. Of one that was enrolled it has told the ends, if so.
 */
static __always_inline bool is_due(struct candidate *both, struct settings *set)
{
	struct conn *conn = &both->conn;

	if (!both->not_before_ns)
		return both->generation == set->generation;
	return bpf_ktime_get_ns() >= both->not_before_ns && is_at_rest(sock_of(&conn->client)) &&
	       is_at_rest(sock_of(&conn->server));
}

static __always_inline bool are_ready(struct candidate *both)
{
	struct settings *set = get_settings();
	struct conn *conn = &both->conn;

	if (!set || !is_due(both, set))
		return false;
	return is_ready(&conn->client) && is_ready(&conn->server);
}

/* The network namespaces in which there is something to do. Without room, some are of the next look. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_NAMESPACES);
	__type(key, __u32);
	__type(value, __u32);
} namespaces SEC(".maps");

static __always_inline void note_namespace(__u32 netns)
{
	bpf_map_update_elem(&namespaces, &netns, &netns, BPF_ANY);
}

static long look_at(struct bpf_map *map __attribute__((unused)),
		    const void *key __attribute__((unused)), struct candidate *found,
		    void *nothing __attribute__((unused)))
{
	struct candidate both = *found;

	if (are_ready(&both)) {
		note_namespace(both.client_netns);
		note_namespace(both.server_netns);
	}
	return 0;
}

/* User space runs it. Not an iterator over the elements of a map, which some kernels refuse. */
SEC("tc")
int beeline_ready(struct __sk_buff *nothing __attribute__((unused)))
{
	bpf_for_each_map_elem(&waiting, look_at, 0, 0);
	return 0;
}

/* Nothing waits in TCP's receive queue, and nobody sleeps in TCP's own read. What waits there goes as
 * whole buffers into the psock queue with the next packet (tcp_read_skb, net/ipv4/tcp.c), also what
 * was read of one before, or is by a native read that has not come to the lock yet.
 */
static __always_inline bool may_enter(struct sock *sk)
{
	return READ(sock, sk, sk_receive_queue.qlen) == 0 && sleepers(sk) == 0 && !unfit(sk);
}

/* Somebody waits for the lock that we have, or packets do. It may be a native read, which would take
 * the end of the stream for all there is while bytes are in the psock queue.
 */
static __always_inline bool is_wanted(struct sock *sk)
{
	struct list_head *head = &sk->sk_lock.wq.head;

	return BPF_CORE_READ(sk, sk_lock.wq.head.next) != head ||
	       BPF_CORE_READ(sk, sk_backlog.tail);
}

/* It is not a twin that waits. */
static __always_inline bool is_of(struct candidate *both, struct end *end, struct sock *sk)
{
	struct side *own = is_client(end) ? &both->conn.client : &both->conn.server;

	return own->cookie == sock_cookie(sk);
}

static __always_inline bool enter_sockmaps(struct tcp_sock *tp, struct handshake *own)
{
	if (bpf_map_update_elem(&socks, own, tp, BPF_NOEXIST))
		return false;
	if (!bpf_map_update_elem(&targets, own, tp, BPF_NOEXIST))
		return true;
	bpf_map_delete_elem(&socks, own);
	return false;
}

static __always_inline bool enter_maps(struct tcp_sock *tp, struct handshake *own)
{
	__u64 cookie = sock_cookie((struct sock *)tp);

	if (expect((struct sock *)tp, cookie, READ(tcp_sock, tp, rcv_nxt)) &&
	    enter_sockmaps(tp, own))
		return true;
	expect_no_more(cookie);
	return false;
}

static __always_inline void leave_maps(struct tcp_sock *tp, struct handshake *own)
{
	bpf_map_delete_elem(&targets, own);
	bpf_map_delete_elem(&socks, own);
	expect_no_more(sock_cookie((struct sock *)tp));
}

static __always_inline bool waits(struct end *end)
{
	struct handshake client = client_view(end);

	return bpf_map_lookup_elem(&waiting, &client);
}

static __always_inline bool enter(struct tcp_sock *tp, struct end *end)
{
	__u64 cookie = sock_cookie((struct sock *)tp);
	struct handshake own = end->own;
	struct totals *sums = get_totals();

	if (!sums || !call_back(tp, CALLBACKS) || !enter_maps(tp, &own))
		return false;
	/* Last of all, as whoever comes before that still runs TCP's own calls; and who retires tells those
	 * that are in the map, lets the others wait no more, then looks whether any is in it.
	 */
	if (end->retiring || !waits(end) || is_wanted((struct sock *)tp)) {
		leave_maps(tp, &own);
		return false;
	}
	bpf_map_delete_elem(&left, &cookie);
	/* It sends over the kernel path until all that it sent before has arrived. */
	end->tx = TX_KERNEL;
	end->tx_reason = REASON_PEER_LATE;
	end->flags &= ~END_WAITING;
	if (!(end->flags & END_RETURNS)) {
		end->enrolled_ns = bpf_ktime_get_ns();
		add(&sums->enrolled, 1);
	}
	emit((struct sock *)tp, end, EVENT_ENROLLED, REASON_NONE);
	return true;
}

static __always_inline void client_enters(struct tcp_sock *tp, struct end *end,
					  struct candidate *both)
{
	struct conn conn = {
		.client = both->conn.client,
		.returns = both->conn.returns,
		.pair = both->conn.pair,
	};
	struct handshake own = end->own;

	if (bpf_map_update_elem(&conns, &own, &conn, BPF_NOEXIST))
		return;
	if (!enter(tp, end))
		bpf_map_delete_elem(&conns, &own);
}

static __always_inline void server_enters(struct tcp_sock *tp, struct end *end,
					  struct candidate *both)
{
	struct handshake client = mirror(end->own);
	struct conn *conn = bpf_map_lookup_elem(&conns, &client);
	struct totals *sums = get_totals();

	if (!conn || conn->client.cookie != both->conn.client.cookie || !enter(tp, end))
		return;
	conn->pair = end->pair = pair_of(sock_of(&conn->client), (struct sock *)tp);
	conn->server.cookie = both->conn.server.cookie;
	conn->server.sk = both->conn.server.sk;
	bpf_map_delete_elem(&waiting, &client);
	if (sums && !(end->flags & END_RETURNS))
		add(&sums->paired, 1);
	emit((struct sock *)tp, end, EVENT_PAIRED, REASON_NONE);
}

SEC("iter/tcp")
int beeline_adopt(struct bpf_iter__tcp *ctx)
{
	struct settings *set = get_settings();
	struct tcp_sock *tp = shown(ctx);
	struct candidate *both;
	struct handshake client;
	struct end *end;

	if (!tp || !set || set->mode != MODE_ON)
		return 0;
	end = bpf_sk_storage_get(&ends, tp, 0, 0);
	if (!end || !(end->flags & END_WAITING))
		return 0;
	client = client_view(end);
	both = bpf_map_lookup_elem(&waiting, &client);
	if (!both || !is_of(both, end, (struct sock *)tp) || !are_ready(both) ||
	    !may_enter((struct sock *)tp))
		return 0;
	if (is_client(end))
		client_enters(tp, end, both);
	else
		server_enters(tp, end, both);
	return 0;
}
