/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Copying what enrolled sockets send, for `beeline trace --pcap`; nothing is done while nobody captures.
 *
 * A message is a ring of elements, each of which is contiguous in memory. sk_msg shows one of them to
 * the program; bpf_msg_pull_data goes to another, without a copy as long as no more is asked for than
 * one element has, and user space cannot change it meanwhile as it can what it gave to sendfile.
 */
#ifndef BEELINE_CAPTURE_H
#define BEELINE_CAPTURE_H

#include "maps.h"
#include "sock.h"

/* Pieces of at most CAPTURE_PIECE bytes, one more for each element that ends before. */
#define MAX_PIECES (CAPTURE_MAX / CAPTURE_PIECE + 18)

/* Most messages are short, and the ring takes room for the whole of what is reserved. */
#define SHORT_PIECE 512

static __always_inline __u32 element_length(struct sk_msg *msg, __u32 index)
{
	void *element = (void *)&msg->sg.data + index * bpf_core_type_size(struct scatterlist);

	return BPF_CORE_READ((struct scatterlist *)element, length);
}

/* The kernel's message as a number: before Linux 6.10 the verifier allows no sum of a context and an
 * offset whose bounds it has lost in a product.
 */
static __always_inline struct sk_msg *kern_msg(struct sk_msg_md *ctx)
{
	struct sk_msg *msg = 0;

	bpf_probe_read_kernel(&msg, sizeof(msg), &ctx);
	return msg;
}

static __always_inline __u32 next_element(struct sk_msg *msg, __u32 index)
{
	__u32 ring = bpf_core_field_size(msg->sg.data) / bpf_core_type_size(struct scatterlist) - 1;

	return index + 1 == ring ? 0 : index + 1;
}

static __always_inline bool put_piece(void *ring, const struct piece *piece, const void *from,
				      const __u32 room)
{
	__u32 length = piece->length;
	struct piece *to = bpf_ringbuf_reserve(ring, sizeof(*piece) + room, 0);

	if (!to)
		return false;
	*to = *piece;
	if (length > room || bpf_probe_read_kernel(to + 1, length, from)) {
		bpf_ringbuf_discard(to, 0);
		return false;
	}
	bpf_ringbuf_submit(to, 0);
	return true;
}

static __always_inline bool put(void *ring, const struct piece *piece, const void *from)
{
	if (piece->length <= SHORT_PIECE)
		return put_piece(ring, piece, from, SHORT_PIECE);
	return put_piece(ring, piece, from, CAPTURE_PIECE);
}

static __always_inline bool is_uncaptured(struct end *end)
{
	struct handshake client = client_view(end);
	__u32 zero = 0;
	void *others = bpf_map_lookup_elem(&uncaptured, &zero);

	return others && bpf_map_lookup_elem(others, &client);
}

static __always_inline void lost(__u32 bytes)
{
	struct totals *sums = get_totals();

	if (!sums)
		return;
	add(&sums->lost_pieces, 1);
	add(&sums->lost_bytes, bytes);
}

static __noinline int capture_piece(struct sk_msg_md *ctx, struct piece *piece)
{
	__u32 zero = 0;
	void *ring = bpf_map_lookup_elem(&captures, &zero);

	if (!ring)
		return 0;
	if (bpf_msg_pull_data(ctx, piece->offset, piece->offset + 1, 0) ||
	    !put(ring, piece, (void *)(long)ctx->data))
		lost(piece->length);
	return 0;
}

/* Not static: the verifier looks at it by itself, not again for each way that leads there. Before Linux
 * 5.12 such a function takes no pointers but the context.
 */
__noinline int capture(struct sk_msg_md *ctx, __u32 size, __u32 most, bool redirected)
{
	struct bpf_sock *sk = ctx->sk;
	struct end *end = sk ? bpf_sk_storage_get(&ends, sk, 0, 0) : 0;
	struct sk_msg *msg = kern_msg(ctx);
	struct piece piece = { .size = size, .redirected = redirected };
	__u32 wanted = size < most ? size : most;
	__u32 index, left;

	if (!end || is_uncaptured(end))
		return 0;
	piece.at_ns = bpf_ktime_get_ns();
	piece.position = end->redirected_bytes + end->kernel_bytes;
	piece.own = end->own;
	piece.is_client = is_client(end);
	read_endpoints(BPF_CORE_READ(msg, sk), &piece.endpoints);
	index = BPF_CORE_READ(msg, sg.start);
	left = element_length(msg, index);
	for (int i = 0; i < MAX_PIECES && piece.offset < wanted; i++) {
		__u32 length = wanted - piece.offset;

		if (!left) {
			index = next_element(msg, index);
			left = element_length(msg, index);
		}
		length = length < left ? length : left;
		piece.length = length < CAPTURE_PIECE ? length : CAPTURE_PIECE;
		capture_piece(ctx, &piece);
		piece.offset += piece.length;
		left -= piece.length;
	}
	return 0;
}

/* The first bytes of a message, before they are counted as sent. */
static __always_inline void capture_if_asked(struct sk_msg_md *msg, __u32 size, bool redirected)
{
	struct settings *set = get_settings();

	if (set && set->capture)
		capture(msg, size, set->capture, redirected);
}

#endif
