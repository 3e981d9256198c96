/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The socket path. sock_ops proves from the handshake that both ends of a TCP connection are on
 * this host and puts them into a SOCKHASH; sk_msg then hands every message to the peer's socket.
 *
 *   server  SYN arrives, SYN-ACK is built   offer      {snt_isn + 1, rcv_isn + 1}
 *   client  SYN-ACK arrives                 the mirror image is on offer: enrol
 *   server  ACK arrives                     the client is enrolled: enrol
 *
 * docs/paths/socket.md walks one connection. "Invariant N" refers to docs/architecture.md.
 */
#include "vmlinux.h"
#include "lib/count.h"
#include "lib/maps.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Brings the types of abi.h that no map names into the BTF, from which Rust takes them. */
const volatile struct {
	struct event event;
	struct end_record end_record;
	enum abi_version abi_version;
	enum reason reason;
	enum mode mode;
	enum tx_path tx_path;
	enum event_kind event_kind;
} abi_types SEC(".rodata.abi");

static __always_inline struct handshake own_handshake(struct bpf_sock_ops *ops)
{
	return (struct handshake){ .snd_nxt = ops->snd_nxt, .rcv_nxt = ops->rcv_nxt };
}

static __always_inline struct end *own_end(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	return sk ? bpf_sk_storage_get(&ends, sk, 0, 0) : 0;
}

/* A server's kernel is building its SYN-ACK: remember both initial sequence numbers. */
static __always_inline void make_offer(struct bpf_sock_ops *ops)
{
	struct tcp_request_sock *req = (struct tcp_request_sock *)kern_sock(ops);
	struct offer offer = { .made_ns = bpf_ktime_get_ns() };
	struct settings *set = get_settings();
	struct handshake own;
	struct offer *twin;

	/* The same callback sizes the window of a client's SYN. */
	if (BPF_CORE_READ((struct sock *)req, __sk_common.skc_state) != BPF_TCP_NEW_SYN_RECV)
		return;
	if (!set || set->mode != MODE_ON)
		return;
	if (bpf_core_field_exists(req->is_mptcp) && BPF_CORE_READ(req, is_mptcp))
		offer.reason = REASON_MPTCP;
	own.snd_nxt = BPF_CORE_READ(req, snt_isn) + 1;
	own.rcv_nxt = BPF_CORE_READ(req, rcv_isn) + 1;
	offer.netns = sock_netns((struct sock *)req);
	if (!bpf_map_update_elem(&offers, &own, &offer, BPF_NOEXIST))
		return;
	/* The kernel computes initial sequence numbers from addresses, ports, a secret of the whole
	 * host, and a clock of 64 ns (net/core/secure_seq.c, 6.18). Two namespaces with equal
	 * addresses may come to the same pair; then nobody can tell whose client is whose.
	 */
	twin = bpf_map_lookup_elem(&offers, &own);
	if (twin && twin->netns != offer.netns)
		twin->reason = REASON_COLLISION;
}

/* What about this socket rules out redirection, if anything. */
static __always_inline enum reason unsuitable(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	struct settings *set = get_settings();

	if (!set || set->mode != MODE_ON)
		return REASON_DETACHING;
	if (bpf_core_field_exists(tp->is_mptcp) && BPF_CORE_READ(tp, is_mptcp))
		return REASON_MPTCP;
	if (BPF_CORE_READ_BITFIELD_PROBED(sk, sk_kern_sock))
		return REASON_KERNEL_SOCKET;
	if (BPF_CORE_READ(tp, inet_conn.icsk_ulp_ops))
		return REASON_ULP;
	if (BPF_CORE_READ_BITFIELD_PROBED(tp, syn_data) || BPF_CORE_READ(tp, fastopen_rsk))
		return REASON_FAST_OPEN;
	return REASON_NONE;
}

/* Puts the socket of a sock_ops context into the map. */
static __always_inline enum reason enrol(struct bpf_sock_ops *ops, struct sock *sk,
					 struct handshake own, bool is_client)
{
	struct bpf_sock *ctx_sk = ops->sk;
	struct totals *sums = get_totals();
	struct end *end;
	long err;

	if (!ctx_sk || !sums)
		return REASON_MAP_FULL;
	end = bpf_sk_storage_get(&ends, ctx_sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!end)
		return REASON_MAP_FULL;
	__builtin_memset(end, 0, sizeof(*end));
	end->own = own;
	end->is_client = is_client;
	end->enrolled_ns = bpf_ktime_get_ns();
	err = bpf_sock_hash_update(ops, &socks, &own, BPF_NOEXIST);
	if (err) {
		bpf_sk_storage_delete(&ends, ctx_sk);
		if (err == -EEXIST)
			return REASON_COLLISION;
		return err == -EBUSY ? REASON_FOREIGN_SOCKMAP : REASON_MAP_FULL;
	}
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	sums->enrolled++;
	emit(sk, end, EVENT_ENROLLED, REASON_NONE);
	return REASON_NONE;
}

/* A connect() succeeded. The peer is local if, and only if, its handshake is on offer
 * (invariants 3 and 4).
 */
static __always_inline enum reason client_established(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct handshake own = own_handshake(ops), peer = mirror(own);
	struct conn conn = { .client_sk = (__u64)sk, .client_cookie = bpf_get_socket_cookie(ops) };
	struct offer *offer = bpf_map_lookup_elem(&offers, &peer);
	enum reason reason;

	if (!offer)
		return unsuitable(sk) ?: REASON_PEER_ELSEWHERE;
	reason = offer->reason ?: unsuitable(sk);
	if (reason) {
		offer->reason = reason;
		return reason;
	}
	if (bpf_map_update_elem(&conns, &own, &conn, BPF_NOEXIST)) {
		reason = bpf_map_lookup_elem(&conns, &own) ? REASON_COLLISION : REASON_MAP_FULL;
	} else {
		reason = enrol(ops, sk, own, true);
		if (reason)
			bpf_map_delete_elem(&conns, &own);
	}
	if (reason)
		offer->reason = reason;
	return reason;
}

/* An accept() has something to return. Its client ran before, if it is on this host. */
static __always_inline enum reason server_established(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct handshake own = own_handshake(ops), client = mirror(own);
	struct offer *offer = bpf_map_lookup_elem(&offers, &own);
	struct conn *conn = bpf_map_lookup_elem(&conns, &client);
	enum reason reason = offer ? offer->reason : REASON_NO_RECORD;
	struct totals *sums = get_totals();

	bpf_map_delete_elem(&offers, &own);
	if (offer && reason)
		return REASON_NONE; /* the client's end counted it */
	reason = unsuitable(sk) ?: reason;
	if (!offer)
		return reason; /* `conn`, if there is one, may be that of a twin */
	if (!reason && !conn)
		reason = REASON_PEER_ELSEWHERE;
	if (!reason)
		reason = enrol(ops, sk, own, false);
	if (reason == REASON_COLLISION)
		return reason; /* so is this one */
	if (reason || !conn) {
		bpf_map_delete_elem(&conns, &client);
		return reason;
	}
	conn->server_cookie = bpf_get_socket_cookie(ops);
	conn->server_sk = (__u64)sk;
	if (sums)
		sums->paired++;
	emit(sk, own_end(ops), EVENT_PAIRED, REASON_NONE);
	return REASON_NONE;
}

/* The connection of an enrolled socket is over. */
static __always_inline void closed(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct totals *sums = get_totals();
	struct end *end = own_end(ops);
	struct handshake client;

	if (!sums || !end || end->closed)
		return;
	end->closed = 1;
	client = end->is_client ? end->own : mirror(end->own);
	bpf_map_delete_elem(&conns, &client);
	sums->closed++;
	sums->closed_redirected_bytes += end->redirected_bytes;
	sums->closed_redirected_msgs += end->redirected_msgs;
	sums->closed_kernel_bytes += end->kernel_bytes;
	emit(sk, end, EVENT_CLOSED, end->tx_reason);
}

/* A socket that was disconnected connects again, or listens: what it did not read, and what its old
 * peer may still send, belongs to its first life (invariant 1). It is lost here as by plain TCP.
 */
static __always_inline void forget(struct bpf_sock_ops *ops)
{
	struct end *end = own_end(ops);
	struct bpf_sock *ctx_sk = ops->sk;
	struct handshake own;

	if (!end || !ctx_sk)
		return;
	own = end->own;
	bpf_map_delete_elem(&socks, &own);
	bpf_sk_storage_delete(&ends, ctx_sk);
}

SEC("sockops")
int beeline_sock_ops(struct bpf_sock_ops *ops)
{
	struct sock *sk = kern_sock(ops);
	enum reason reason = REASON_NONE;

	switch (ops->op) {
	case BPF_SOCK_OPS_RWND_INIT:
		make_offer(ops);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		reason = client_established(ops, sk);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		reason = server_established(ops, sk);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		if (ops->args[1] == BPF_TCP_CLOSE)
			closed(ops, sk);
		else if (ops->args[0] == BPF_TCP_CLOSE)
			forget(ops);
		return 1;
	default:
		return 1;
	}
	/* Invariant 7. Whoever is not local has no event: they must not pay for being traced. */
	if (reason) {
		count_reason(reason);
		emit(sk, 0, EVENT_ESTABLISHED, reason);
	}
	/* ops->reply stays as it is: other programs on the cgroup may have set it. */
	return 1;
}

/* The first message of a direction: find the peer, once. */
static __noinline int find_peer(struct end *end)
{
	struct handshake client;
	struct conn *conn;

	if (!end)
		return REASON_PEER_LATE;
	client = end->is_client ? end->own : mirror(end->own);
	conn = bpf_map_lookup_elem(&conns, &client);
	if (!conn || !conn->server_sk)
		return REASON_PEER_LATE;
	end->peer_sk = end->is_client ? conn->server_sk : conn->client_sk;
	end->peer_cookie = end->is_client ? conn->server_cookie : conn->client_cookie;
	return REASON_NONE;
}

/* Why the next message of this end must not be redirected, if so. */
static __always_inline enum reason hold_back(struct end *end)
{
	struct sock *peer = (struct sock *)end->peer_sk;
	struct settings *set = get_settings();

	if (!set || set->mode == MODE_DETACHING)
		return REASON_RETIRED;
	if (sock_cookie(peer) != end->peer_cookie)
		return REASON_PEER_GONE;
	/* Invariant 5. A message is at most as long as one sk_msg, so the excess is bounded. */
	if (psock_unread(sock_psock(peer)) > set->queue_limit)
		return REASON_QUEUE_FULL;
	return REASON_NONE;
}

static __always_inline int over_kernel_path(struct sk_msg_md *msg, struct end *end,
					    enum reason reason)
{
	if (end->tx != TX_KERNEL) {
		end->tx = TX_KERNEL;
		end->tx_reason = reason;
		count_reason(reason);
		emit(BPF_CORE_READ((struct sk_msg *)(void *)msg, sk), end, EVENT_KERNEL_PATH,
		     reason);
	}
	end->kernel_bytes += msg->size;
	return SK_PASS;
}

/* Runs under the socket lock for every message of an enrolled socket.
 *
 * redirect -> kernel path is safe at any byte, because a reader empties its psock queue before it
 * looks at the TCP receive queue (net/ipv4/tcp_bpf.c, tcp_bpf_recvmsg). The other way round is
 * not, so a direction that took the kernel path stays there (invariant 1).
 */
SEC("sk_msg")
int beeline_sk_msg(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&ends, msg->sk, 0, 0);
	struct handshake peer;
	enum reason reason;
	__u32 size = msg->size;

	if (!end)
		return SK_PASS;
	if (end->tx == TX_KERNEL)
		return over_kernel_path(msg, end, REASON_NONE);
	if (end->tx == TX_START) {
		reason = find_peer(end);
		if (reason)
			return over_kernel_path(msg, end, reason);
	}
	reason = hold_back(end);
	if (reason)
		return over_kernel_path(msg, end, reason);
	peer = mirror(end->own);
	if (bpf_msg_redirect_hash(msg, &socks, &peer, BPF_F_INGRESS) != SK_PASS)
		return over_kernel_path(msg, end, REASON_PEER_GONE);
	if (end->tx == TX_START) {
		end->tx = TX_REDIRECT;
		emit(BPF_CORE_READ((struct sk_msg *)(void *)msg, sk), end, EVENT_REDIRECT_STARTED,
		     REASON_NONE);
	}
	end->redirected_bytes += size;
	end->redirected_msgs++;
	return SK_PASS;
}
