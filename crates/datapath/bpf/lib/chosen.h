/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The sockets that a program acts on; src/chosen.rs sizes and fills it. */
#ifndef BEELINE_CHOSEN_H
#define BEELINE_CHOSEN_H

#include "maps.h"

/* Handshakes as their own ends see them; the value is the program's. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct handshake);
	__type(value, __u32);
} chosen SEC(".maps");

#endif
