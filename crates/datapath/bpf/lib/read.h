/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Reads of kernel memory, of which only the address may be known, and which may have been freed: they
 * never fail, and whoever draws a conclusion from such memory compares a cookie first. From Linux 6.2
 * on bpf_rdonly_cast makes them plain loads; before, they are copies by a helper, from 5.8 on.
 */
#ifndef BEELINE_READ_H
#define BEELINE_READ_H

#include "../vmlinux.h"
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

#define CAST(type, pointer) \
	((struct type *)bpf_rdonly_cast(pointer, bpf_core_type_id_kernel(struct type)))

/* A field of a structure that the pointer points to, whatever the pointer's own type. The pointer is
 * evaluated apart: within BPF_CORE_READ, a structure of ours that it is read from would be relocated too.
 */
#define READ(type, pointer, field)                                             \
	({                                                                     \
		struct type *__at = (void *)(pointer);                         \
		bpf_ksym_exists(bpf_rdonly_cast) ? CAST(type, __at)->field     \
						 : BPF_CORE_READ(__at, field); \
	})

#define READ_BITS(type, pointer, field)                                                            \
	({                                                                                         \
		struct type *__at = (void *)(pointer);                                             \
		bpf_ksym_exists(bpf_rdonly_cast) ? BPF_CORE_READ_BITFIELD(CAST(type, __at), field) \
						 : BPF_CORE_READ_BITFIELD_PROBED(__at, field);     \
	})

#endif
