/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Options that programs set on enrolled sockets.
 *
 * Kernel TLS, and any other upper layer protocol, is kept off them. What is redirected would reach the reader as text
 * although it is records (tls_sw_recvmsg, net/tls/tls_sw.c, 6.18), and a socket that leaves a map with a stream_verdict
 * program loses its TLS (sock_map_del_link, net/core/sock_map.c, puts tcp_bpf's functions in the place of TLS's). No program
 * can take it out of the map before the option is set. So the first such call of a program gets the answer of a
 * kernel that does not know the protocol, upon which TLS libraries encipher themselves; what the program
 * connects or accepts from then on is left alone (invariant 2).
 *
 * Keepalive options that Beeline has for a moment (keepalive.bpf.c) go back before the program sets its own.
 */
#include "vmlinux.h"
#include "lib/keepalive.h"
#include "lib/maps.h"
#include "lib/program.h"
#include "lib/sock.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

static __always_inline void remember_program(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 verdict = VERDICT_USES_ULP;
	struct program program;

	if (read_program(task, &program))
		bpf_map_update_elem(&programs, &program, &verdict, BPF_ANY);
}

static __always_inline bool is_ulp(struct bpf_sockopt *ctx)
{
	return ctx->level == SOL_TCP && ctx->optname == TCP_ULP;
}

static __always_inline bool is_of_keepalive(struct bpf_sockopt *ctx)
{
	return (ctx->level == SOL_SOCKET && ctx->optname == SO_KEEPALIVE) ||
	       (ctx->level == SOL_TCP && ctx->optname == TCP_KEEPIDLE);
}

/* Runs under the socket's lock, for all that sets options of a socket in the cgroup. */
SEC("cgroup/setsockopt")
int beeline_setsockopt(struct bpf_sockopt *ctx)
{
	struct bpf_sock *sk = ctx->sk;
	struct end *end;

	if (!sk || (!is_ulp(ctx) && !is_of_keepalive(ctx)))
		return 1;
	end = bpf_sk_storage_get(&ends, sk, 0, 0);
	if (!end)
		return 1;
	if (is_of_keepalive(ctx)) {
		give_back_keepalive(sk, end);
		return 1;
	}
	/* Before Linux 6.2, addresses are read of what is no socket of the verifier's. */
	if (!sock_psock(READ(bpf_sockopt_kern, ctx, sk)))
		return 1;
	remember_program();
	/* Since Linux 5.18; before, the call fails with EPERM. */
	if (bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_set_retval))
		bpf_set_retval(-ENOENT);
	return 0;
}
