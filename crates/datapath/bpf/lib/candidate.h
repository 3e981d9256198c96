/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Noting the ends of a connection that may be enrolled later: first the client's, then the server's. */
#ifndef BEELINE_CANDIDATE_H
#define BEELINE_CANDIDATE_H

#include "maps.h"
#include "sock.h"

/* false if there is such a one already. */
static __always_inline bool note_client(struct handshake client, struct sock *sk, __u64 cookie,
					__u32 generation)
{
	struct candidate candidate = {
		.conn = { .client = { .sk = (__u64)sk, .cookie = cookie } },
		.client_netns = sock_netns(sk),
		.generation = generation,
	};

	return !bpf_map_update_elem(&waiting, &client, &candidate, BPF_NOEXIST);
}

static __always_inline void note_server(struct candidate *candidate, struct sock *sk, __u64 cookie)
{
	candidate->server_netns = sock_netns(sk);
	candidate->conn.server.cookie = cookie;
	candidate->conn.server.sk = (__u64)sk;
}

#endif
