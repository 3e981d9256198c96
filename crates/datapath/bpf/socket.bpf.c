/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The socket path. sock_ops proves from the handshake that both ends of a TCP connection are on
 * this host and puts them into a SOCKHASH; sk_msg then hands every message to the peer's socket.
 *
 *   server  SYN arrives, SYN-ACK is built   offer      {snt_isn + 1, rcv_isn + 1}
 *   client  SYN-ACK arrives                 the mirror image is on offer: enrol
 *   server  ACK arrives                     the client is enrolled: enrol
 *
 * Ends that block are remembered, and enrolled by adopt.bpf.c when neither does any more.
 *
 * docs/paths/socket.md walks one connection. "Invariant N" refers to docs/architecture.md.
 */
#include "vmlinux.h"
#include "lib/candidate.h"
#include "lib/capture.h"
#include "lib/count.h"
#include "lib/dead_reader.h"
#include "lib/fit.h"
#include "lib/flight.h"
#include "lib/full.h"
#include "lib/hist.h"
#include "lib/leave.h"
#include "lib/maps.h"
#include "lib/overlap.h"
#include "lib/padding.h"
#include "lib/peer.h"
#include "lib/program.h"
#include "lib/rest.h"
#include "lib/rules.h"
#include "lib/small.h"
#include "lib/sock.h"
#include "lib/urgent.h"
#include "lib/zero_copy.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Brings the types of abi.h that no map names into the BTF, from which Rust takes them. */
const volatile struct {
	struct event event;
	struct piece piece;
	enum capture_limits capture_limits;
	struct end_report end_report;
	struct holder holder;
	struct thread thread;
	struct process process;
	struct candidate candidate;
	struct newcomer newcomer;
	struct view view;
	struct asked asked;
	enum earlier_limits earlier_limits;
	struct rule_answer rule_answer;
	struct rule_range rule_range;
	struct rule_options rule_options;
	enum rule_limits rule_limits;
	enum dimension dimension;
	enum verdict verdict;
	enum abi_version abi_version;
	enum reason reason;
	enum mode mode;
	enum tx_path tx_path;
	enum end_flag end_flag;
	enum event_kind event_kind;
	enum hist hist;
	enum pair_index pair_index;
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

/* The connection of an end, if both are known. */
static __always_inline struct conn *conn_of(struct end *end)
{
	struct handshake client;

	if (!end)
		return 0;
	client = client_view(end);
	return bpf_map_lookup_elem(&conns, &client);
}

/* Who calls connect or listen; the agent hears of a program that nobody looked at. */
static __always_inline bool read_current(struct caller *caller)
{
	/* bpf_get_current_pid_tgid() is not for sock_ops before Linux 6.10. */
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct process process = { .pid = READ(task_struct, task, tgid) };

	if (!read_caller(task, caller))
		return false;
	process.program = caller->program;
	if (!bpf_map_lookup_elem(&programs, &process.program) || !rules_know(&process.program))
		bpf_ringbuf_output(&strangers, &process, sizeof(process), 0);
	return true;
}

/* connect() is about to send the SYN, in the context of its caller (tcp_connect,
 * net/ipv4/tcp_output.c).
 */
static __always_inline void note_caller(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;
	struct caller caller, *noted;

	if (!sk || !read_current(&caller))
		return;
	noted = bpf_sk_storage_get(&callers, sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (noted)
		*noted = caller;
}

/* listen(), likewise (__inet_listen_sk, net/ipv4/af_inet.c). */
static __always_inline void note_listener(struct sock *sk)
{
	__u64 inode = sock_inode(sk);
	struct caller caller;

	if (inode && read_current(&caller))
		bpf_map_update_elem(&listeners, &inode, &caller, BPF_ANY);
}

static __always_inline struct caller *listening_caller(struct sock *listener)
{
	__u64 inode = sock_inode(listener);

	return bpf_map_lookup_elem(&listeners, &inode);
}

static __always_inline struct caller *connecting_caller(struct bpf_sock_ops *ops)
{
	struct bpf_sock *sk = ops->sk;

	return sk ? bpf_sk_storage_get(&callers, sk, 0, 0) : 0;
}

static __always_inline struct program *program_of(struct caller *caller)
{
	return caller ? &caller->program : 0;
}

/* The listener stands where other sockets have their flags (include/net/sock.h, a union). */
static __always_inline struct sock *listener_of(struct tcp_request_sock *req)
{
	return READ(sock, req, __sk_common.skc_listener);
}

/* Why a listener rules out redirection, if it does; notes what rules may ask of it. */
static __always_inline enum reason listener_unfit(struct tcp_request_sock *req, struct offer *offer)
{
	const struct request_sock_ops *protocol = READ(request_sock, req, rsk_ops);
	__u16 family = READ(request_sock_ops, protocol, family);
	struct sock *listener = listener_of(req);
	struct caller *caller = listening_caller(listener);
	struct settings *set = get_settings();

	if (caller)
		offer->facts.program = caller->program;
	if (set && set->judging) {
		read_facts((struct sock *)req, family, listener, &offer->facts);
		offer->judged = 1;
	}
	/* Whoever is accepted inherits them, and its client would be enrolled by then. */
	if (has_option(listener))
		return REASON_OPTION;
	return caller_unfit(caller) ?: (is_blocking(listener) ? REASON_BLOCKING : REASON_NONE);
}

/* Why whoever connected, or a rule, rules out redirection, if so. */
static __always_inline enum reason client_unfit(struct caller *caller, struct sock *sk,
						struct offer *offer, __u32 generation)
{
	enum reason reason = caller_unfit(caller);
	struct settings *set = get_settings();
	struct facts facts = {};

	if (!reason && caller && set && set->judging) {
		if (!offer->judged)
			return REASON_UNKNOWN_WORKLOAD;
		facts.program = caller->program;
		read_facts(sk, READ(sock, sk, __sk_common.skc_family), sk, &facts);
		reason = ruled_out(&facts, offer, generation & 1);
	}
	return reason ?: (is_blocking(sk) ? REASON_BLOCKING : REASON_NONE);
}

/* A server's kernel is building its SYN-ACK: remember both initial sequence numbers. Out of line, for the
 * stack: that of all calls together is 512 bytes.
 */
static __noinline void make_offer(struct bpf_sock_ops *ops)
{
	struct tcp_request_sock *req = (struct tcp_request_sock *)kern_sock(ops);
	struct offer offer = { .made_ns = bpf_ktime_get_ns() };
	struct settings *set = get_settings();
	struct handshake own;
	struct offer *twin;

	/* The same callback sizes the window of a client's SYN. */
	if (READ(sock, req, __sk_common.skc_state) != BPF_TCP_NEW_SYN_RECV)
		return;
	if (!set || set->mode != MODE_ON)
		return;
	if (bpf_core_field_exists(req->is_mptcp) && READ(tcp_request_sock, req, is_mptcp))
		offer.reason = REASON_MPTCP;
	else
		offer.reason = listener_unfit(req, &offer);
	own.snd_nxt = READ(tcp_request_sock, req, snt_isn) + 1;
	own.rcv_nxt = READ(tcp_request_sock, req, rcv_isn) + 1;
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
	struct settings *set = get_settings();

	return set && set->mode == MODE_ON ? unfit(sk) : REASON_DETACHING;
}

static __always_inline enum reason enter_sockmaps(struct bpf_sock_ops *ops, struct handshake *own)
{
	long err = bpf_sock_hash_update(ops, &socks, own, BPF_NOEXIST);

	if (err == -EEXIST)
		return REASON_COLLISION;
	if (err)
		return err == -EBUSY ? REASON_FOREIGN_SOCKMAP : REASON_MAP_FULL;
	if (bpf_sock_hash_update(ops, &targets, own, BPF_NOEXIST)) {
		bpf_map_delete_elem(&socks, own);
		return REASON_MAP_FULL;
	}
	return REASON_NONE;
}

/* Puts the socket of a sock_ops context into the maps. */
static __always_inline enum reason enter_maps(struct bpf_sock_ops *ops, struct sock *sk,
					      struct handshake *own)
{
	/* From here on the socket has one, which the event tells and the peer compares. */
	__u64 cookie = bpf_get_socket_cookie(ops);
	enum reason reason =
		expect(sk, cookie, own->rcv_nxt) ? enter_sockmaps(ops, own) : REASON_MAP_FULL;

	if (reason)
		expect_no_more(cookie);
	return reason;
}

static __always_inline struct end *new_end(struct bpf_sock_ops *ops, struct handshake own,
					   struct program *program, __u32 queue_limit, __u8 flags)
{
	struct bpf_sock *sk = ops->sk;
	struct end *end = sk ? bpf_sk_storage_get(&ends, sk, 0, BPF_SK_STORAGE_GET_F_CREATE) : 0;

	if (!end)
		return 0;
	__builtin_memset(end, 0, sizeof(struct enrolled));
	end->own = own;
	end->flags = flags | overheard(ops->bpf_sock_ops_cb_flags);
	end->queue_limit = queue_limit;
	if (program)
		end->program = *program;
	end->enrolled_ns = bpf_ktime_get_ns();
	return end;
}

static __always_inline enum reason enrol(struct bpf_sock_ops *ops, struct sock *sk,
					 struct handshake own, struct program *program,
					 __u32 queue_limit, __u8 flags)
{
	struct bpf_sock *ctx_sk = ops->sk;
	struct end *end = new_end(ops, own, program, queue_limit, flags);
	struct totals *sums = get_totals();
	enum reason reason;

	if (!ctx_sk || !end || !sums)
		return REASON_MAP_FULL;
	reason = enter_maps(ops, sk, &own);
	if (reason) {
		bpf_sk_storage_delete(&ends, ctx_sk);
		return reason;
	}
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | CALLBACKS);
	start_small(ops);
	add(&sums->enrolled, 1);
	emit(sk, end, EVENT_ENROLLED, REASON_NONE);
	return REASON_NONE;
}

/* This end is fit but for one that blocks. */
static __always_inline bool remember(struct bpf_sock_ops *ops, struct handshake own,
				     struct program *program, __u32 queue_limit, __u8 flags)
{
	if (!new_end(ops, own, program, queue_limit, flags | END_WAITING))
		return false;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG);
	return true;
}

static __always_inline void client_waits(struct bpf_sock_ops *ops, struct sock *sk,
					 struct offer *offer, __u32 generation)
{
	struct bpf_sock *ctx_sk = ops->sk;
	struct handshake own = own_handshake(ops);

	if (!ctx_sk ||
	    !remember(ops, own, program_of(connecting_caller(ops)), offer->queue_limit, END_CLIENT))
		return;
	if (note_client(own, sk, bpf_get_socket_cookie(ops), generation))
		offer->client_waits = 1;
	else /* a twin waits, and is not to be taken for this one */
		bpf_sk_storage_delete(&ends, ctx_sk);
}

static __always_inline void server_waits(struct bpf_sock_ops *ops, struct sock *sk,
					 struct program *program, __u32 queue_limit)
{
	struct handshake own = own_handshake(ops), client = mirror(own);
	struct candidate *candidate = bpf_map_lookup_elem(&waiting, &client);

	if (!candidate || !remember(ops, own, program, queue_limit, 0))
		return;
	note_server(candidate, sk, bpf_get_socket_cookie(ops));
}

/* A connect() succeeded. The peer is local if, and only if, its handshake is on offer
 * (invariants 3 and 4).
 */
static __always_inline enum reason client_established(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct handshake own = own_handshake(ops), peer = mirror(own);
	struct conn conn = { .client = { .sk = (__u64)sk, .cookie = bpf_get_socket_cookie(ops) } };
	struct offer *offer = bpf_map_lookup_elem(&offers, &peer);
	struct caller *caller = connecting_caller(ops);
	struct settings *set = get_settings();
	__u32 generation = set ? set->generation : 0;
	enum reason reason;

	if (!offer)
		return unsuitable(sk) ?: REASON_PEER_ELSEWHERE;
	reason = offer->reason;
	if (!reason || reason == REASON_BLOCKING)
		reason = unsuitable(sk) ?: client_unfit(caller, sk, offer, generation) ?: reason;
	if (reason) {
		offer->reason = reason;
		if (reason == REASON_BLOCKING && !offer->at_once)
			client_waits(ops, sk, offer, generation);
		return reason;
	}
	if (bpf_map_update_elem(&conns, &own, &conn, BPF_NOEXIST)) {
		reason = bpf_map_lookup_elem(&conns, &own) ? REASON_COLLISION : REASON_MAP_FULL;
	} else {
		reason = enrol(ops, sk, own, program_of(caller), offer->queue_limit, END_CLIENT);
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
	bool waits = offer && offer->client_waits;
	struct program program = {};
	__u64 begun_ns = offer ? offer->made_ns : 0;
	__u32 queue_limit = offer ? offer->queue_limit : 0;
	struct totals *sums;

	if (offer)
		program = offer->facts.program;
	bpf_map_delete_elem(&offers, &own);
	if (waits && !unsuitable(sk))
		server_waits(ops, sk, &program, queue_limit);
	if (offer && reason)
		return REASON_NONE; /* the client's end counted it */
	reason = unsuitable(sk) ?: reason;
	/* `conn`, if there is one, may be that of a twin, which has its server or waits for it. */
	if (!offer)
		return reason;
	if (conn && conn->server.sk)
		return REASON_COLLISION;
	if (!reason && !conn)
		reason = REASON_PEER_ELSEWHERE;
	if (!reason)
		reason = enrol(ops, sk, own, &program, queue_limit, 0);
	if (reason || !conn) {
		bpf_map_delete_elem(&conns, &client);
		return reason;
	}
	/* Before the server's socket, at which the client knows that there is a peer. */
	begin_pair(conn, own_end(ops), sk, begun_ns);
	conn->server.cookie = bpf_get_socket_cookie(ops);
	conn->server.sk = (__u64)sk;
	sums = get_totals();
	if (sums)
		add(&sums->paired, 1);
	emit(sk, own_end(ops), EVENT_PAIRED, REASON_NONE);
	return REASON_NONE;
}

/* Between accept() and fcntl() a socket blocks that will not block; its peer may send meanwhile. */
#define GRACE_NS (100 * 1000 * 1000ULL)

static __always_inline bool has_grace(struct sock *sk, struct end *end)
{
	return is_blocking(sk) && bpf_ktime_get_ns() - end->enrolled_ns <= GRACE_NS;
}

static __always_inline void stop_calling(struct bpf_sock_ops *ops, struct end *end, int callbacks)
{
	if (end && end->flags & END_OVERHEARD)
		return;
	bpf_sock_ops_cb_flags_set(ops, ops->bpf_sock_ops_cb_flags & ~callbacks);
}

/* A packet tells that something goes on over the kernel path. A socket that is plain TCP again has no more to pay
 * for that.
 */
static __always_inline void packet_leaves(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct end *end = own_end(ops);

	if (!end || !sock_psock(sk))
		stop_calling(ops, end, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	else if (!has_grace(sk, end))
		leave_if_unfit(sk, end);
	if (end && ops->skb_len && waits_for_reader(sk, end))
		hold_sender(ops, sk, end, true);
	if (end)
		pad_for_reader(ops, end);
}

/* A segment comes that is not just the next one, as urgent data and the end of the stream never are, nor what has
 * padding. Its sender is mostly inside the call that sends it. When both sockets are plain TCP, there is nothing to hear.
 */
static __noinline void packet_comes(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct end *end = own_end(ops);
	struct conn *conn = conn_of(end);
	struct side *peer;

	if (!end || !conn) {
		/* It had a peer, whose end of the connection is over: closed(). */
		if (end && end->peer_sk)
			give_up(ops, sk);
		stop_calling(ops, end, BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
		return;
	}
	peer = peer_side(conn, end);
	if (sock_cookie(sock_of(peer)) == peer->cookie && is_dead(sock_of(peer)))
		give_up(ops, sk);
	if (ops->skb_tcp_flags & TCPHDR_URG)
		conn->leaves = REASON_URGENT;
	if (conn->leaves == REASON_URGENT || !has_grace(sk, end))
		leave_if_unfit(sk, end);
	if (!sock_psock(sk) && !sock_psock(sock_of(peer)))
		stop_calling(ops, end, BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
}

/* The connection of an enrolled socket is over. If nothing waits there, not even the end of the
 * stream, what its program calls from now on is TCP's to answer.
 */
static __noinline void closed(struct sock *sk, struct end *end, int state)
{
	struct handshake own = end->own, client = client_view(end);
	struct totals *sums = get_totals();
	__u64 cookie = sock_cookie(sk);
	bool other_closed;
	struct conn *conn;

	if (!sums)
		return;
	end->flags |= END_CLOSED;
	conn = bpf_map_lookup_elem(&conns, &client);
	if (conn)
		end->pair = conn->pair;
	other_closed = bpf_map_delete_elem(
		end->flags & END_WAITING ? (void *)&waiting : (void *)&conns, &client);
	if (was_never_enrolled(end))
		return;
	if (!last_segment_follows(sk, state))
		expect_no_more(cookie);
	settle(end, !other_closed);
	add(&sums->closed, 1);
	add(&sums->closed_redirected_bytes, end->redirected_bytes);
	add(&sums->closed_redirected_msgs, end->redirected_msgs);
	add(&sums->closed_kernel_bytes, end->kernel_bytes);
	emit(sk, end, EVENT_CLOSED, end->tx_reason);
	/* What the maps have is a twin's. */
	if (!sock_psock(sk)) {
		bpf_map_delete_elem(&left, &cookie);
		return;
	}
	bpf_map_delete_elem(&targets, &own);
	if (!(READ(sock, sk, sk_shutdown) & RCV_SHUTDOWN) && may_leave(sk, calls_that_send(sk)))
		bpf_map_delete_elem(&socks, &own);
}

/* A socket that was disconnected connects again, or listens: what it did not read belongs to its first
 * life (invariant 1). It is lost here as by plain TCP.
 */
static __always_inline void forget(struct bpf_sock_ops *ops, struct sock *sk, struct end *end)
{
	struct bpf_sock *ctx_sk = ops->sk;
	struct handshake own = end->own;

	if (sock_psock(sk))
		bpf_map_delete_elem(&socks, &own);
	if (ctx_sk)
		bpf_sk_storage_delete(&ends, ctx_sk);
}

static __always_inline void state_changes(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct end *end = own_end(ops);

	if (!end)
		return;
	if (ops->args[1] == BPF_TCP_FIN_WAIT1) {
		leave_if_unfit(sk, end);
	} else if (ops->args[1] == BPF_TCP_CLOSE) {
		/* A socket may be disconnected, and live on. */
		hold_sender(ops, sk, end, false);
		closed(sk, end, ops->args[0]);
	} else if (ops->args[0] == BPF_TCP_CLOSE) {
		forget(ops, sk, end);
	}
}

/* An acknowledgement came, so this end sends over the kernel path. */
static __always_inline void acknowledged(struct bpf_sock_ops *ops, struct sock *sk)
{
	struct end *end = own_end(ops);

	if (!end)
		return;
	if (end->tx == TX_KERNEL)
		record(end->pair, HIST_RTT, smoothed_rtt(sk));
	hold_sender(ops, sk, end,
		    waits_for_reader(sk, end) &&
			    READ(tcp_sock, sk, snd_una) != READ(tcp_sock, sk, write_seq));
	/* It is plain TCP again, and has no more to pay. */
	if (!sock_psock(sk))
		stop_calling(ops, end, BPF_SOCK_OPS_RTT_CB_FLAG);
}

SEC("sockops")
int beeline_sock_ops(struct bpf_sock_ops *ops)
{
	struct sock *sk = kern_sock(ops);
	enum reason reason = REASON_NONE;

	switch (ops->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		note_caller(ops);
		return 1;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		note_listener(sk);
		return 1;
	case BPF_SOCK_OPS_RWND_INIT:
		make_offer(ops);
		return 1;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		reason = client_established(ops, sk);
		if (ops->sk)
			bpf_sk_storage_delete(&callers, ops->sk);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		reason = server_established(ops, sk);
		break;
	case BPF_SOCK_OPS_STATE_CB:
		state_changes(ops, sk);
		return 1;
	case BPF_SOCK_OPS_RTT_CB:
		acknowledged(ops, sk);
		return 1;
	case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
		packet_comes(ops, sk);
		return 1;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		packet_leaves(ops, sk);
		return 1;
	default:
		return 1;
	}
	/* Invariant 7. */
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
	struct conn *conn = conn_of(end);
	struct side *peer;

	if (!end || !conn || !conn->server.sk)
		return REASON_PEER_LATE;
	peer = peer_side(conn, end);
	end->peer_sk = peer->sk;
	end->peer_cookie = peer->cookie;
	end->pair = conn->pair;
	return REASON_NONE;
}

/* Why the next message of this end must not be redirected, if so; else how much waits at the reader. */
static __always_inline enum reason hold_back(struct settings *set, struct tcp_sock *own,
					     struct end *end, __u32 *unread)
{
	__s64 pages;

	if (set->mode == MODE_DETACHING)
		return REASON_RETIRED;
	if (end->retiring)
		return end->retiring;
	/* A send after shutdown() has to fail, and one over TLS has to be encrypted: TCP does. */
	if (own->inet_conn.icsk_inet.sk.sk_shutdown & SEND_SHUTDOWN)
		return REASON_SHUT_DOWN;
	if (has_ulp((struct sock *)own))
		return REASON_ULP;
	if (is_blocking((struct sock *)own) || is_blocking((struct sock *)end->peer_sk))
		return REASON_BLOCKING;
	if (!peer_unread(end, unread))
		return REASON_PEER_GONE;
	/* TLS takes what was redirected for text that is deciphered (tls_sw_recvmsg, net/tls/tls_sw.c). */
	if (has_ulp((struct sock *)end->peer_sk))
		return REASON_ULP;
	/* Segments below the low-water mark would keep the reader from what waits in its queue. */
	if (has_option((struct sock *)own) ||
	    (*unread == 0 && has_option((struct sock *)end->peer_sk)))
		return REASON_OPTION;
	/* TCP resets a connection on which data comes when nobody will read it (invariant 2). */
	if (peer_shut_reading((struct sock *)end->peer_sk))
		return REASON_SHUT_DOWN;
	/* Invariant 5, for all queues together: they count as TCP memory, and when the kernel has none
	 * left for a redirect it says ENOMEM, where TCP would let the sender wait.
	 */
	pages = own->inet_conn.icsk_inet.sk.__sk_common.skc_prot->memory_allocated->counter;
	if (pages > 0 && (__u64)pages > set->memory_limit)
		return REASON_QUEUE_FULL;
	return REASON_NONE;
}

/* Whether what took a direction to the kernel path may have passed. */
static __always_inline bool may_pass(enum reason reason)
{
	return reason == REASON_QUEUE_FULL || reason == REASON_BLOCKING ||
	       reason == REASON_PEER_LATE;
}

/* A direction that was left for want of room comes back when the reader has caught up with half of
 * the limit, or to make the sender wait; one that was left because a socket blocked when it does not, one
 * that began before the peer was enrolled when it is. All that went over the kernel path has to be in the
 * reader's queue by then.
 */
static __always_inline bool may_return(struct settings *set, struct tcp_sock *own, struct end *end,
				       __u32 size)
{
	struct sock *peer;
	__u32 unread;

	if (!may_pass(end->tx_reason))
		return false;
	if (!end->peer_sk && find_peer(end))
		return false;
	peer = (struct sock *)end->peer_sk;
	if (!has_arrived(own, peer) || !peer_unread(end, &unread))
		return false;
	return (has_room(set, end, unread, 2) || last_byte_suffices(set, own, end, unread, size)) &&
	       all_is_queued(peer);
}

/* The connection leaves the maps. */
static __noinline int go_away(struct end *end, enum reason reason)
{
	struct conn *conn = conn_of(end);

	if (!conn)
		return REASON_NONE;
	conn->leaves = reason;
	return reason;
}

/* Before a direction begins to redirect; see leave_if_unfit. */
static __noinline void say_first(struct end *end)
{
	struct conn *conn = conn_of(end);

	if (!conn)
		return;
	take_back(conn, end, SIDE_SETTLED);
	say(conn, end, SIDE_REDIRECTS);
}

/* A direction has left the redirect. If nobody else is awake inside a call of the socket, all that it redirected is in the
 * queue.
 */
static __noinline void say_settled(struct sock *sk, struct end *end)
{
	struct conn *conn = conn_of(end);

	if (conn && others_sleep(sk, 1))
		say(conn, end, SIDE_SETTLED);
}

/* Of this message, something was redirected already: all but its last byte. */
static __always_inline bool is_rest(struct sk_msg_md *msg)
{
	return READ(sk_msg, msg, apply_bytes);
}

/* SK_PASS for the rest of a message would be another redirect to the same socket, which may be gone
 * (sk_psock_msg_verdict, net/core/skmsg.c; not where the kernel forgets the socket in between). To redirect to the own
 * socket's way out is the same as to pass.
 * If that has just left the maps, the program is told that it wrote less than it wanted.
 */
static __always_inline int pass(struct sk_msg_md *msg, struct handshake own)
{
	if (!is_rest(msg))
		return SK_PASS;
	bpf_msg_apply_bytes(msg, 0);
	return bpf_msg_redirect_hash(msg, &socks, &own, 0);
}

static __always_inline int over_kernel_path(struct sk_msg_md *msg, struct end *end,
					    enum reason reason)
{
	if (reason && reason != end->tx_reason) {
		end->tx = TX_KERNEL;
		end->tx_reason = reason;
		count_reason(reason);
		emit(READ(sk_msg, msg, sk), end, EVENT_KERNEL_PATH, reason);
		say_settled(READ(sk_msg, msg, sk), end);
	}
	end->sent_us = 0;
	complete_once(msg);
	if (pass(msg, end->own) != SK_PASS)
		return SK_DROP;
	capture_if_asked(msg, msg->size, false);
	end->kernel_bytes += msg->size;
	tally(end, HIST_KERNEL_PATH, msg->size);
	return SK_PASS;
}

/* Runs under the socket lock for all that arrives at an enrolled socket over the kernel path. The
 * kernel then puts it behind what was redirected, so that the reader has one queue
 * (docs/decisions/0007-one-queue.md).
 */
SEC("sk_skb/stream_verdict")
int beeline_stream_verdict(struct __sk_buff *skb)
{
	return cut_overlap(skb) ? SK_PASS : SK_DROP;
}

/* Runs under the socket lock for every message of an enrolled socket.
 *
 * redirect -> kernel path is safe at any byte, because what arrives is put into the reader's queue
 * behind what is there. The other way round is safe only when nothing is on its way (invariant 1).
 */
SEC("sk_msg")
int beeline_sk_msg(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&ends, msg->sk, 0, 0);
	struct tcp_sock *own = bpf_skc_to_tcp_sock(msg->sk);
	struct settings *set = get_settings();
	struct handshake peer;
	__u32 size = msg->size, unread;
	enum reason reason;

	if (!end || !own || !set)
		return is_rest(msg) ? SK_DROP : SK_PASS;
	if (is_urgent() && go_away(end, REASON_URGENT))
		return over_kernel_path(msg, end, REASON_URGENT);
	if (end->tx == TX_KERNEL && !may_return(set, own, end, size))
		return over_kernel_path(msg, end, REASON_NONE);
	if (end->tx == TX_START) {
		reason = find_peer(end);
		if (reason)
			return over_kernel_path(msg, end, reason);
	}
	reason = hold_back(set, own, end, &unread);
	if (!reason && !has_room(set, end, unread, 1)) {
		if (last_byte_suffices(set, own, end, unread, size))
			size--;
		else
			reason = REASON_QUEUE_FULL;
	}
	if (!reason && streams_small_writes(own, end, size))
		reason = go_away(end, REASON_SMALL_WRITES);
	if (!reason && is_more_than_chosen((struct sock *)end->peer_sk, unread + size))
		reason = go_away(end, REASON_RECEIVE_BUFFER);
	if (reason)
		return over_kernel_path(msg, end, reason);
	peer = mirror(end->own);
	if (end->tx != TX_REDIRECT)
		say_first(end);
	/* Whatever takes a socket from the targets can be seen before that. */
	if (bpf_msg_redirect_hash(msg, &targets, &peer, BPF_F_INGRESS) != SK_PASS)
		return over_kernel_path(msg, end,
					hold_back(set, own, end, &unread) ?: REASON_PEER_GONE);
	if (size < msg->size || is_rest(msg))
		bpf_msg_apply_bytes(msg, size);
	end->tx = TX_REDIRECT;
	end->tx_reason = REASON_NONE;
	if (!end->redirected_msgs)
		emit(READ(sk_msg, msg, sk), end, EVENT_REDIRECT_STARTED, REASON_NONE);
	capture_if_asked(msg, size, true);
	end->redirected_bytes += size;
	end->redirected_msgs++;
	tally(end, HIST_REDIRECTED, size);
	tally(end, HIST_QUEUE, unread);
	time_read(end, unread);
	return SK_PASS;
}
