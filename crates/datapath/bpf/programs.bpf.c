/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reports which program each process executes, and notes who has the sockets that listen already. */
#include "vmlinux.h"
#include "lib/file.h"
#include "lib/maps.h"
#include "lib/program.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

SEC("iter/task")
int beeline_processes(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct process process = {};

	if (!task || task != BPF_CORE_READ(task, group_leader))
		return 0;
	if (!read_program(task, &process.program))
		return 0;
	process.pid = BPF_CORE_READ(task, tgid);
	bpf_seq_write(ctx->meta->seq, &process, sizeof(process));
	return 0;
}

SEC("iter/task_file")
int beeline_listeners(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct caller caller, *noted;
	struct sock *sk;
	__u64 inode;

	if (!task || !file)
		return 0;
	sk = tcp_sock_of(file);
	if (!sk || READ(sock, sk, __sk_common.skc_state) != BPF_TCP_LISTEN)
		return 0;
	if (!read_caller(task, &caller))
		return 0;
	inode = sock_inode(sk);
	noted = bpf_map_lookup_elem(&listeners, &inode);
	/* Two programs have it: either may accept. No program is all zeroes. */
	if (noted && (noted->program.inode != caller.program.inode ||
		      noted->program.device != caller.program.device))
		__builtin_memset(&caller, 0, sizeof(caller));
	bpf_map_update_elem(&listeners, &inode, &caller, BPF_ANY);
	return 0;
}
