/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The kernel types that the BPF objects read, and of these only the fields they read. libbpf
 * relocates every access to the running kernel's layout (CO-RE). Names and meanings are those of
 * Linux 6.18; what other kernels lack is asked for with bpf_core_field_exists().
 */
#ifndef BEELINE_VMLINUX_H
#define BEELINE_VMLINUX_H

#include "uapi.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
	__s64 counter;
} atomic64_t;

typedef struct {
	unsigned int val;
} kuid_t;

struct ns_common {
	unsigned int inum;
};

struct netns_ipv4 {
	__u32 sysctl_tcp_rmem[3]; /* int */
};

struct net {
	struct ns_common ns;
	struct netns_ipv4 ipv4;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
};

/* include/net/sock.h */
struct proto {
	atomic64_t *memory_allocated; /* pages, of all sockets */
};

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct proto *skc_prot;
	struct sock *skc_listener; /* of a request socket */
	unsigned long skc_flags; /* bits of enum sock_flags */
	possible_net_t skc_net;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
	atomic64_t skc_cookie;
};

struct kernfs_node {
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct sock_cgroup_data {
	struct cgroup *cgroup;
};

struct socket;

struct list_head {
	struct list_head *next, *prev;
};

/* include/linux/wait.h */
struct wait_queue_entry {
	int (*func)(struct wait_queue_entry *entry, unsigned int mode, int flags, void *key);
	struct list_head entry;
};

typedef struct wait_queue_head {
	struct list_head head;
} wait_queue_head_t;

struct socket_wq {
	wait_queue_head_t wait;
};

/* include/linux/skbuff.h */
struct sk_buff {
	struct sock *sk;
	char cb[48]; /* of whoever has it: of TCP a struct tcp_skb_cb */
};

struct sk_buff_head {
	__u32 qlen;
};

typedef struct {
	int counter;
} atomic_t;

/* include/linux/spinlock_types.h, include/asm-generic/qspinlock_types.h */
typedef struct qspinlock {
	atomic_t val;
} arch_spinlock_t;

typedef struct raw_spinlock {
	arch_spinlock_t raw_lock;
} raw_spinlock_t;

typedef struct spinlock {
	struct raw_spinlock rlock;
} spinlock_t;

typedef struct {
	spinlock_t slock;
	int owned;
	wait_queue_head_t wq; /* who waits for it */
} socket_lock_t;

typedef struct refcount_struct {
	atomic_t refs;
} refcount_t;

enum sock_flags {
	SOCK_DONE = 1,
	SOCK_KEEPOPEN = 3,
	SOCK_RCVTSTAMP = 11,
	SOCK_ZEROCOPY = 21,
};

struct sock {
	struct sock_common __sk_common;
	socket_lock_t sk_lock;
	struct sk_buff_head sk_receive_queue;
	struct {
		struct sk_buff *tail;
	} sk_backlog;
	struct socket_wq *sk_wq;
	struct bpf_local_storage *sk_bpf_storage;
	__u16 sk_type;
	__u16 sk_protocol;
	int sk_rcvlowat;
	int sk_peek_off;
	struct socket *sk_socket;
	kuid_t sk_uid;
	__u8 sk_kern_sock : 1;
	__u8 sk_shutdown;
	__u8 sk_userlocks; /* SOCK_RCVBUF_LOCK: SO_RCVBUF was set */
	int sk_rcvbuf;
	__u32 sk_tsflags; /* SO_TIMESTAMPING; 16 bits before Linux 6.5 */
	unsigned long sk_max_pacing_rate; /* bytes per second */
	void *sk_filter; /* SO_ATTACH_FILTER, SO_ATTACH_BPF */
	unsigned long sk_ino;
	void *sk_user_data;
	struct sock_cgroup_data sk_cgrp_data;
};

struct super_block {
	__u32 s_dev;
};

struct inode {
	unsigned long i_ino;
	struct super_block *i_sb;
	__s64 i_ctime_sec;
	__u32 i_ctime_nsec;
};

struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};

/* Linux 6.6 to 6.10 */
struct inode___with_timespec {
	struct timespec64 __i_ctime;
};

/* Linux before 6.6 */
struct inode___before {
	struct timespec64 i_ctime;
};

struct file {
	unsigned int f_flags;
	struct inode *f_inode;
};

struct socket {
	struct file *file;
	struct sock *sk;
};

/* include/net/sock.h */
struct socket_alloc {
	struct socket socket; /* at its beginning */
	struct inode vfs_inode;
};

/* include/linux/mm_types.h, include/linux/sched.h */
struct mm_struct {
	struct file *exe_file;
};

struct thread_info {
	unsigned long flags;
#if defined(__TARGET_ARCH_x86)
	__u32 status;
#endif
};

struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	struct mm_struct *mm;
	struct task_struct *group_leader;
	int pid;
	int tgid;
	char comm[16];
	unsigned int flags;
	unsigned int ptrace;
	__u64 utime;
	struct io_uring_task *io_uring;
};

/* What a system call was called with: arch/x86/include/asm/ptrace.h, arch/arm64/include/asm/ptrace.h */
struct pt_regs {
#if defined(__TARGET_ARCH_x86)
	unsigned long r10;
	unsigned long ax;
	unsigned long dx;
	unsigned long orig_ax;
#elif defined(__TARGET_ARCH_arm64)
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
#endif
};

/* include/net/inet_connection_sock.h */
struct tcp_ulp_ops;

struct inet_sock {
	struct sock sk;
};

struct inet_connection_sock {
	struct inet_sock icsk_inet;
	const struct tcp_ulp_ops *icsk_ulp_ops;
	struct {
		__u8 pingpong;
	} icsk_ack;
};

/* include/net/request_sock.h */
struct request_sock_ops {
	int family; /* of the packets; an IPv6 socket may have IPv4 ones */
};

struct request_sock {
	const struct request_sock_ops *rsk_ops;
};

/* include/linux/tcp.h */

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 copied_seq;
	__u32 write_seq;
	__u32 snd_una;
	__u32 snd_nxt;
	__u32 snd_wnd;
	__u64 bytes_acked; /* by which snd_una has grown */
	__u64 bytes_received; /* by which rcv_nxt has grown */
	__u32 snd_cwnd_clamp;
	__u32 mss_cache;
	__u64 tcp_mstamp;
	__u8 nonagle : 4;
	__u32 srtt_us; /* of eighths of microseconds */
	__u8 syn_data : 1;
	__u8 recvmsg_inq : 1;
	__u8 bpf_sock_ops_cb_flags;
	bool is_mptcp;
	struct request_sock *fastopen_rsk;
};

/* include/net/tcp.h */
struct tcp_skb_cb {
	__u32 seq;
	__u32 end_seq; /* SYN and FIN count */
};

struct tcp_request_sock {
	bool is_mptcp;
	__u32 rcv_isn;
	__u32 snt_isn;
};

/* include/linux/skmsg.h */
struct scatterlist {
	unsigned int length;
};

struct sk_msg_sg {
	__u32 start; /* first element */
	__u32 size; /* bytes that are not read yet */
	struct scatterlist data[19]; /* a ring, but for the last one: MAX_MSG_FRAGS + 2 */
};

struct sk_msg {
	struct sk_msg_sg sg;
	__u32 apply_bytes; /* that the last verdict is about; 0: all */
	struct sock *sk;
	struct list_head list;
};

struct sk_psock {
	struct sk_buff_head ingress_skb; /* has still to be put into ingress_msg */
	struct list_head ingress_msg;
	__u32 msg_tot_len;
	struct list_head link; /* one struct sk_psock_link for each map that holds the socket */
	refcount_t refcnt;
};

/* include/linux/bpf.h, include/linux/bpf_local_storage.h: what a socket has in maps of the kind SK_STORAGE */
struct hlist_node {
	struct hlist_node *next;
};

struct hlist_head {
	struct hlist_node *first;
};

struct bpf_map {
	__u32 id;
};

struct bpf_local_storage_map {
	struct bpf_map map;
};

struct bpf_local_storage_data {
	struct bpf_local_storage_map *smap;
	__u8 data[];
};

struct bpf_local_storage_elem {
	struct hlist_node snode;
	struct bpf_local_storage_data sdata;
};

struct bpf_local_storage {
	struct hlist_head list;
};

/* include/linux/filter.h: what struct bpf_sock_ops is inside the kernel */
struct bpf_sock_ops_kern {
	struct sock *sk;
};

/* Likewise struct bpf_sockopt. */
struct bpf_sockopt_kern {
	struct sock *sk;
};

struct seq_file;

/* kernel/bpf/bpf_iter.c, net/core/bpf_sk_storage.c */
struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_map;

/* kernel/bpf/task_iter.c */
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct bpf_iter__task_file {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
	__u32 fd;
	struct file *file;
};

/* net/ipv4/tcp_ipv4.c */
struct bpf_iter__tcp {
	struct bpf_iter_meta *meta;
	struct sock_common *sk_common;
};

#pragma clang attribute pop

#endif
