/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Leaving the maps while the connection goes on: the socket is plain TCP then, and costs nothing. */
#ifndef BEELINE_LEAVE_H
#define BEELINE_LEAVE_H

#include "maps.h"
#include "overlap.h"
#include "rest.h"
#include "sock.h"

/* How long a connection that left stays away; twice as long each time. */
#define AWAY_NS (1000 * 1000 * 1000ULL)
#define MAX_DOUBLINGS 6

/* An end says something of itself, and hears what both have said before. */
static __always_inline __u32 say(struct conn *conn, const struct end *end, enum side_flag flag)
{
	__u32 before = __sync_fetch_and_or(&conn->flags, flag << (is_client(end) ? 0 : SIDES));

	/* Only an instruction that fetches orders what comes before and after it. */
	barrier_var(before);
	return before;
}

static __always_inline __u32 of_peer(const struct end *end, __u32 flags)
{
	return is_client(end) ? flags >> SIDES : flags;
}

/* What the peer has said. If it says something later, it sees what was done before. */
static __always_inline __u32 hear(struct conn *conn, const struct end *end)
{
	return of_peer(end, say(conn, end, 0));
}

/* An end takes back what it has said. */
static __always_inline void take_back(struct conn *conn, const struct end *end, enum side_flag flag)
{
	__u32 before = __sync_fetch_and_and(&conn->flags, ~(flag << (is_client(end) ? 0 : SIDES)));

	barrier_var(before);
}

/* Both ends of a connection have left: they may be enrolled again, as ends that blocked at first. */
static __always_inline void may_come_back(struct conn *conn, struct handshake client)
{
	struct candidate candidate = { .conn = *conn };
	__u8 returns = conn->returns;

	candidate.conn.returns = returns < MAX_DOUBLINGS ? returns + 1 : returns;
	candidate.client_netns = sock_netns(sock_of(&conn->client));
	candidate.server_netns = sock_netns(sock_of(&conn->server));
	candidate.not_before_ns = bpf_ktime_get_ns() + (AWAY_NS << (returns & 7));
	bpf_map_update_elem(&waiting, &client, &candidate, BPF_NOEXIST);
	bpf_map_delete_elem(&conns, &client);
}

/* The socket leaves for what its connection carries. Before it is out of the maps: whoever retires it looks for it there
 * first, and then lets it wait no more.
 */
static __always_inline void goes_out(struct end *end, struct conn *conn, struct handshake client)
{
	end->flags |= END_WAITING | END_RETURNS;
	end->small_writes = 0;
	end->peer_sk = 0;
	if (!(of_peer(end, say(conn, end, SIDE_OUT)) & SIDE_OUT))
		return;
	may_come_back(conn, client);
	if (end->retiring)
		bpf_map_delete_elem(&waiting, &client);
}

/* The program made the socket block, and nothing may wake its reader for nothing from here on; or it
 * has set an option that TCP has to heed (invariant 2); or its connection leaves. The peer sends over
 * the kernel path, and when nothing waits here or is on its way, the psock goes. What the peer's threads are inside of
 * does not matter as long as it has never redirected, which it says before it looks for this socket among the targets;
 * or if it is settled.
 */
static __always_inline void leave_if_unfit(struct sock *sk, struct end *end)
{
	struct handshake own = end->own, client = client_view(end);
	struct conn *conn;
	__u32 peer;

	/* After the end of the peer's stream no read sleeps, and TCP could not count what is there: each
	 * read of the end counts as a byte more (net/ipv4/tcp_bpf.c, tcp_bpf_recvmsg_parser).
	 */
	if (!sock_psock(sk) || READ(sock, sk, sk_shutdown) & RCV_SHUTDOWN)
		return;
	conn = bpf_map_lookup_elem(&conns, &client);
	if (!is_blocking(sk) && !has_option(sk) && !(conn && conn->leaves))
		return;
	bpf_map_delete_elem(&targets, &own);
	if (!conn)
		return;
	peer = hear(conn, end);
	if (!may_leave(sk, calls_that_send(sk)) ||
	    ((peer & (SIDE_REDIRECTS | SIDE_SETTLED)) == SIDE_REDIRECTS &&
	     !others_sleep(sock_of(peer_side(conn, end)), 0)))
		return;
	/* No message will say it. */
	end->tx = TX_KERNEL;
	end->tx_reason = conn->leaves ?: is_blocking(sk) ? REASON_BLOCKING : REASON_OPTION;
	if (conn->leaves)
		goes_out(end, conn, client);
	leave_socks(sk, &own);
}

#endif
