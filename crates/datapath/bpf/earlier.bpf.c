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
#include "lib/candidate.h"
#include "lib/file.h"
#include "lib/fit.h"
#include "lib/maps.h"
#include "lib/program.h"
#include "lib/storage.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* By the inodes of their files. */
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
	struct sock *sk = tcp_sock_of(file);

	return sk && READ(sock, sk, __sk_common.skc_state) == BPF_TCP_ESTABLISHED ? sk : 0;
}

/* Reports the views of established sockets. Without their locks: numbers that do not belong together
 * have no counterpart. There may be hundreds of thousands, so that no more is told of them.
 */
SEC("iter/task_file")
int beeline_earlier(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct caller caller;
	struct view view = {};
	struct sock *sk;

	if (!task || !file)
		return 0;
	sk = established_sock(file);
	if (!sk || !read_caller(task, &caller))
		return 0;
	view.own = handshake_of(sk, false);
	view.socket = sock_inode(sk);
	view.inode = caller.program.inode;
	view.device = caller.program.device;
	view.is_newcomer =
		!is_blocking(sk) && !unfit(sk) && !caller_unfit(&caller) && !stored_end(sk);
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
	record.inode = sock_inode(sk);
	newcomer = bpf_map_lookup_elem(&newcomers, &record.inode);
	if (!newcomer || !read_program(task, &record.end.program))
		return 0;
	identify(sk, &record);
	record.end.own = newcomer->own;
	record.end.flags = newcomer->flags;
	bpf_seq_write(ctx->meta->seq, &record, sizeof(record));
	return 0;
}

/* It is still the one that was found, and was not connected anew. */
static __always_inline bool is_same(struct sock *sk, struct newcomer *newcomer)
{
	struct handshake now = handshake_of(sk, newcomer->flags & END_CLIENT);

	return now.snd_nxt == newcomer->own.snd_nxt && now.rcv_nxt == newcomer->own.rcv_nxt;
}

/* As at the handshake. */
static __always_inline bool note_candidate(struct sock *sk, __u64 cookie, struct newcomer *newcomer)
{
	struct handshake client = newcomer->own;
	struct candidate *candidate;

	if (newcomer->flags & END_CLIENT)
		return note_client(client, sk, cookie, newcomer->generation);
	client = mirror(client);
	candidate = bpf_map_lookup_elem(&waiting, &client);
	if (!candidate)
		return false;
	note_server(candidate, sk, cookie);
	return true;
}

/* Runs twice in each network namespace, as the client's end has to come first. */
SEC("iter/tcp")
int beeline_remember(struct bpf_iter__tcp *ctx)
{
	struct tcp_sock *tp = shown(ctx);
	struct newcomer *newcomer;
	struct end *end;
	struct sock *sk;
	__u64 inode;

	if (!tp)
		return 0;
	sk = (struct sock *)tp;
	inode = sock_inode(sk);
	newcomer = bpf_map_lookup_elem(&newcomers, &inode);
	if (!newcomer || !is_same(sk, newcomer) || bpf_sk_storage_get(&ends, tp, 0, 0) ||
	    !call_back(tp, BPF_SOCK_OPS_STATE_CB_FLAG))
		return 0;
	end = bpf_sk_storage_get(&ends, tp, 0, BPF_SK_STORAGE_GET_F_CREATE);
	if (!end)
		return 0;
	end->own = newcomer->own;
	end->program = newcomer->program;
	end->queue_limit = newcomer->queue_limit;
	end->flags = newcomer->flags | END_WAITING |
		     overheard(READ(tcp_sock, tp, bpf_sock_ops_cb_flags));
	/* It may not have had a cookie. */
	if (!note_candidate(sk, bpf_get_socket_cookie(tp), newcomer))
		bpf_sk_storage_delete(&ends, tp);
	return 0;
}
