/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Programs that splice from sockets although their files do not show it (lib/program.h): tells of enrolled
 * sockets that are spliced from. Kernels that let no program look at their functions refuse it.
 */
#include "vmlinux.h"
#include "lib/maps.h"
#include "lib/program.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* Sockets, as their ends see their handshakes. Without room one is told of when it is spliced from again. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16);
} spliced SEC(".maps");

/* In process context, with or without the end of the call in sight: the call itself finds nothing. */
SEC("fentry/tcp_splice_read")
int beeline_splice_read(__u64 *arguments)
{
	struct socket *socket = (struct socket *)arguments[0];
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 verdict = VERDICT_MAY_SPLICE;
	struct sock *sk = socket->sk;
	struct program program;
	struct end *end;

	if (!sk || !sock_psock(sk))
		return 0;
	end = bpf_sk_storage_get(&ends, sk, 0, 0);
	if (!end)
		return 0;
	if (read_program(task, &program))
		bpf_map_update_elem(&programs, &program, &verdict, BPF_ANY);
	if (!end->retiring)
		bpf_ringbuf_output(&spliced, &end->own, sizeof(end->own), 0);
	return 0;
}
