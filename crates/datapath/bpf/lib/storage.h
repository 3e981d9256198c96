/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What a socket has in the map `ends`, found by reading: of sockets of which a program has no more than where they are. */
#ifndef BEELINE_STORAGE_H
#define BEELINE_STORAGE_H

#include "maps.h"
#include "sock.h"

/* A socket has one element for each map of this kind. */
#define MAX_STORAGES 64

/* 0 if there is none (bpf_local_storage_lookup, kernel/bpf/bpf_local_storage.c, 6.18). */
static __always_inline struct end *stored_end(struct sock *sk)
{
	struct hlist_node *at = BPF_CORE_READ(sk, sk_bpf_storage, list.first);
	__u32 wanted = ((struct bpf_map *)&ends)->id;

	for (int i = 0; i < MAX_STORAGES && at; i++) {
		struct bpf_local_storage_elem *elem =
			(void *)at - bpf_core_field_offset(struct bpf_local_storage_elem, snode);

		if (BPF_CORE_READ(elem, sdata.smap, map.id) == wanted)
			return (void *)elem +
			       bpf_core_field_offset(struct bpf_local_storage_elem, sdata.data);
		at = BPF_CORE_READ(at, next);
	}
	return 0;
}

#endif
