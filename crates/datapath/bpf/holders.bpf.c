/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Reports who holds TCP sockets. A host may have hundreds of thousands, for each of which /proc would take
 * a call.
 */
#include "vmlinux.h"
#include "abi.h"
#include "lib/file.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Once for each descriptor. */
SEC("iter/task_file")
int beeline_holders(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct holder holder = {};

	if (!task || !file || !tcp_sock_of(file))
		return 0;
	holder.inode = BPF_CORE_READ(file, f_inode, i_ino);
	holder.pid = BPF_CORE_READ(task, tgid);
	BPF_CORE_READ_STR_INTO(&holder.command, task, group_leader, comm);
	bpf_seq_write(ctx->meta->seq, &holder, sizeof(holder));
	return 0;
}
