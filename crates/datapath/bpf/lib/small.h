/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Streams of small writes.
 *
 * A redirected message wakes the reader, however short it is. TCP gathers what a program writes into
 * segments of the path's size while earlier ones are not acknowledged (Nagle's algorithm), and wakes
 * the reader once for each: faster, if a segment takes many writes and nobody waits for an answer.
 * docs/decisions/0009-small-writes.md.
 */
#ifndef BEELINE_SMALL_H
#define BEELINE_SMALL_H

#include "sock.h"

/* So many writes have to fit into a segment, and so many have to come in a row. */
#define GATHERED 8
#define IN_A_ROW 128

/* include/net/tcp.h */
#define TCP_NAGLE_OFF 1
#define TCP_NAGLE_CORK 2

/* The program did not read from the socket since the write before: a read refreshes tcp_mstamp
 * (tcp_rcv_space_adjust, net/ipv4/tcp_input.c, from tcp_bpf_recvmsg_parser), a redirected message does
 * not. Two readings may agree by chance, in one of 256 cases; not many times in a row.
 */
static __always_inline bool heard_nothing(struct tcp_sock *own, struct end *end)
{
	__u8 before = end->heard;

	end->heard = own->tcp_mstamp;
	return end->heard == before;
}

/* Whether TCP's own way is faster for what this end sends. */
static __always_inline bool streams_small_writes(struct tcp_sock *own, struct end *end, __u32 size)
{
	bool gathers = !(BPF_CORE_READ_BITFIELD(own, nonagle) & TCP_NAGLE_OFF) &&
		       size * GATHERED <= own->mss_cache;

	if (!heard_nothing(own, end) || !gathers) {
		end->small_writes = 0;
		return false;
	}
	end->small_writes++;
	return end->small_writes >= IN_A_ROW;
}

#endif
