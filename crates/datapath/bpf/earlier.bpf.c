/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Connections from before the attachment: finds their sockets, and makes those that user space chose
 * wait to be adopted (adopt.bpf.c) as if their handshakes had been seen.
 *
 * A socket tells the sequence numbers of its handshake as long as it lives: bytes_acked and
 * bytes_received grow whenever snd_una and rcv_nxt do (tcp_snd_una_update and tcp_rcv_nxt_update,
 * net/ipv4/tcp_input.c, 6.18). A client counts the SYN that it sent, a server does not.
 */
#include "vmlinux.h"
#include "lib/fit.h"
#include "lib/maps.h"
#include "lib/program.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* By socket cookies. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_NEWCOMERS);
	__type(key, __u64);
	__type(value, struct newcomer);
} newcomers SEC(".maps");

static __always_inline struct handshake handshake_of(struct sock *sk, bool client)
{
	return (struct handshake){
		.snd_nxt = READ(tcp_sock, sk, snd_una) - (__u32)READ(tcp_sock, sk, bytes_acked) +
			   client,
		.rcv_nxt = READ(tcp_sock, sk, rcv_nxt) - (__u32)READ(tcp_sock, sk, bytes_received),
	};
}

static __always_inline struct sock *established_sock(struct file *file)
{
	struct socket *socket = bpf_sock_from_file(file);
	struct sock *sk = socket ? socket->sk : 0;

	if (!sk || !bpf_skc_to_tcp_sock(sk) ||
	    READ(sock, sk, __sk_common.skc_state) != BPF_TCP_ESTABLISHED)
		return 0;
	return sk;
}

/* Reports the views of established sockets. Without their locks: numbers that do not belong together
 * have no counterpart. There may be hundreds of thousands, so that no more is told of them.
 */
SEC("iter/task_file")
int beeline_earlier(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct program program;
	struct view view = {};
	struct sock *sk;

	if (!task || !file)
		return 0;
	sk = established_sock(file);
	if (!sk || !read_program(task, &program))
		return 0;
	view.own = handshake_of(sk, false);
	view.cookie = bpf_get_socket_cookie(sk);
	view.inode = program.inode;
	view.device = program.device;
	view.is_newcomer = !is_blocking(sk) && !unfit(sk) && !program_unfit(&program) &&
			   !bpf_sk_storage_get(&ends, sk, 0, 0);
	bpf_seq_write(ctx->meta->seq, &view, sizeof(view));
	return 0;
}

/* Reports what rules may ask of newcomers. */
SEC("iter/task_file")
int beeline_newcomers(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct end_record record = {};
	struct file *file = ctx->file;
	struct newcomer *newcomer;
	struct sock *sk;

	if (!task || !file)
		return 0;
	sk = established_sock(file);
	if (!sk)
		return 0;
	record.cookie = sock_cookie(sk);
	newcomer = bpf_map_lookup_elem(&newcomers, &record.cookie);
	if (!newcomer || !read_program(task, &record.end.program))
		return 0;
	record.end.own = newcomer->own;
	record.end.flags = newcomer->flags;
	record.cgroup_id = sock_cgroup(sk);
	record.netns = sock_netns(sk);
	record.uid = BPF_CORE_READ(sk, sk_uid.val);
	read_endpoints(sk, &record.endpoints);
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

/* It is still the one that was found, and was not connected anew. */
static __always_inline bool is_same(struct sock *sk, struct newcomer *newcomer)
{
	struct handshake now = handshake_of(sk, newcomer->flags & END_CLIENT);

	return now.snd_nxt == newcomer->own.snd_nxt && now.rcv_nxt == newcomer->own.rcv_nxt;
}

/* The server's end fills in its part of what the client's left, as at the handshake. */
static __always_inline bool note_candidate(struct sock *sk, struct newcomer *newcomer)
{
	struct handshake client = newcomer->own;
	struct candidate *found, candidate = {
		.conn = { .client_sk = (__u64)sk, .client_cookie = sock_cookie(sk) },
		.client_netns = sock_netns(sk),
		.generation = newcomer->generation,
	};

	if (newcomer->flags & END_CLIENT)
		return !bpf_map_update_elem(&waiting, &client, &candidate, BPF_NOEXIST);
	client = mirror(client);
	found = bpf_map_lookup_elem(&waiting, &client);
	if (!found)
		return false;
	found->server_netns = sock_netns(sk);
	found->conn.server_cookie = sock_cookie(sk);
	found->conn.server_sk = (__u64)sk;
	return true;
}

/* Runs twice in each network namespace, as the client's end has to come first. */
SEC("iter/tcp")
int beeline_remember(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct newcomer *newcomer;
	struct tcp_sock *tp;
	struct end *end;
	struct sock *sk;
	__u64 cookie;

	if (!common)
		return 0;
	tp = bpf_skc_to_tcp_sock(common);
	if (!tp)
		return 0;
	sk = (struct sock *)tp;
	cookie = sock_cookie(sk);
	newcomer = bpf_map_lookup_elem(&newcomers, &cookie);
	if (!newcomer || !is_same(sk, newcomer) || bpf_sk_storage_get(&ends, tp, 0, 0) ||
	    !call_back(tp, BPF_SOCK_OPS_STATE_CB_FLAG))
		return 0;
	end = bpf_sk_storage_get(&ends, tp, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!end)
		return 0;
	end->own = newcomer->own;
	end->program = newcomer->program;
	end->queue_limit = newcomer->queue_limit;
	end->flags = newcomer->flags | END_WAITING;
	if (!note_candidate(sk, newcomer))
		bpf_sk_storage_delete(&ends, tp);
	return 0;
}
