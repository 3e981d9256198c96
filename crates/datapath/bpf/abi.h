/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Every type that crosses between BPF and user space, and between programs of different versions
 * that share pinned maps. Rust gets these types by generation from the BTF of the objects
 * (crates/datapath/build.rs), so this file is their only definition.
 *
 * Whoever changes the size or the meaning of anything that lives in a pinned map raises
 * BEELINE_ABI: a new agent takes over a running datapath only if the numbers are equal.
 */
#ifndef BEELINE_ABI_H
#define BEELINE_ABI_H

enum abi_version {
	BEELINE_ABI = 16,
};

/* The next segment for a socket that is enrolled, over the kernel path. */
struct expected {
	__u64 sk; /* address in the kernel; first, for tidy.bpf.c */
	__u32 seq; /* number of its first byte, if all before was cut off */
	__u32 lost; /* something could not be cut off: nothing more may come */
};

/* What names a connection: the sequence numbers of its handshake as one end sees them, in host
 * byte order. The peer's view is the mirror image. They pass NAT unchanged and do not change
 * while the connection lives.
 */
struct handshake {
	__u32 snd_nxt; /* the first byte this end will send */
	__u32 rcv_nxt; /* the first byte this end expects */
};

/* Why a connection, or one direction of it, is on the kernel path. */
enum reason {
	REASON_NONE,
	/* Whole connections that were never enrolled. */
	REASON_PEER_ELSEWHERE, /* the peer's handshake was not seen on this host */
	REASON_NO_RECORD, /* the handshake began before the attachment, or its record was evicted */
	REASON_FAST_OPEN, /* data travelled in the SYN */
	REASON_MPTCP, /* a subflow of a Multipath TCP connection */
	REASON_ULP, /* an upper layer protocol such as kernel TLS owns the socket, or its program uses one */
	REASON_KERNEL_SOCKET, /* the socket belongs to the kernel itself */
	REASON_MAP_FULL, /* as many connections as the configuration allows */
	REASON_COLLISION, /* another live connection has the same sequence numbers */
	REASON_FOREIGN_SOCKMAP, /* another BPF program already holds the socket in a sockmap */
	REASON_DETACHING, /* no new connections are taken */
	REASON_MAY_SPLICE, /* a program at either end may splice from its sockets */
	REASON_UNKNOWN_PROGRAM, /* it is not known yet whether a program at either end does */
	REASON_UNKNOWN_WORKLOAD, /* it is not known yet which rules concern the cgroup of an end */
	REASON_IO_URING, /* a program at either end has a ring, whose sends without a copy sockmap refuses */
	/* Directions of enrolled connections. */
	REASON_PEER_LATE, /* the first byte was sent before the peer was enrolled */
	REASON_PEER_GONE, /* the peer is no target any more: closed, half-closed or retired */
	REASON_QUEUE_FULL, /* the reader is behind: ordinary back-pressure has to act */
	REASON_SHUT_DOWN, /* an end had shut this direction down: TCP has to answer the message */
	REASON_RETIRED, /* taken back on request: detach, retire */
	REASON_SMALL_WRITES, /* a stream of writes that TCP gathers into few segments */
	REASON_URGENT, /* urgent data (MSG_OOB) was sent: only TCP keeps it apart */
	REASON_RECEIVE_BUFFER, /* more would wait than the reader's SO_RCVBUF allows */
	/* Either. */
	REASON_EXCLUDED, /* a rule or the default leaves the connection to the kernel path */
	REASON_OPTION, /* the socket has an option that TCP's own calls alone honour */
	REASON_BLOCKING, /* a read of the socket may sleep, and would end when it is woken for nothing */
	REASON_COUNT,
};

/* How far new work is taken; lives in settings.mode. */
enum mode {
	MODE_OFF, /* enrol nothing */
	MODE_ON, /* enrol and redirect */
	MODE_DETACHING, /* enrol nothing, and send every new message over the kernel path */
};

/* The one element of the map `settings`: all that may change while programs run. */
struct settings {
	__u32 abi; /* BEELINE_ABI of whoever made the maps */
	__u32 mode; /* enum mode */
	__u32 queue_limit; /* bytes that may wait unread at one reader before the kernel path */
	__u32 tracing; /* not 0: somebody reads `events` */
	__u64 attached_ns; /* CLOCK_BOOTTIME when the datapath was first attached */
	__u64 memory_limit; /* pages of TCP memory on the host before the kernel path */
	__u32 generation; /* of the rules; the lowest bit says which half of their maps is in force */
	__u32 judging; /* not 0: new connections are judged by rules */
	__u32 capture; /* bytes of each message to capture; 0 while nobody captures */
	__u32 histograms; /* which are kept: a bit for each enum hist */
};

/* What histograms are of. */
enum hist {
	/* These are kept with the socket until it closes, under its lock. */
	HIST_REDIRECTED, /* bytes of a message that was redirected */
	HIST_KERNEL_PATH, /* bytes of a message of an enrolled socket that was not */
	HIST_QUEUE, /* bytes that waited unread at the reader when a message was redirected to it */
	/* And these are not. */
	HIST_READ, /* microseconds from sending a redirected message to reading it */
	HIST_RTT, /* TCP's smoothed round-trip time in microseconds, whenever it changes on the kernel path */
	HIST_HANDSHAKE, /* microseconds from the SYN-ACK to the established connection at the server */
	HIST_LIFETIME, /* milliseconds from enrolment to the first end's close */
	HIST_COUNT,
};
#define HIST_OF_A_SOCKET 3

/* Slot 0 counts zeroes, slot n what is above 2^(n-2) and at most 2^(n-1), and the last one all that is
 * larger than 8 MiB, 8 s or 2 h.
 */
#define HIST_SLOTS 26

/* The histograms of one socket. Short, as each socket has one: a slot that is full runs over into
 * the pair's.
 */
struct tally {
	__u64 sums[HIST_OF_A_SOCKET];
	__u32 slots[HIST_OF_A_SOCKET][HIST_SLOTS];
};

/* Per-CPU histograms of a pair of workloads. */
struct hists {
	__u64 sums[HIST_COUNT];
	__u64 slots[HIST_COUNT][HIST_SLOTS];
};

/* Two workloads: the cgroups in which the sockets of a connection were made. */
struct pair {
	__u64 client; /* cgroup id */
	__u64 server;
};

/* Elements of the map `hists`. */
enum pair_index {
	PAIR_OTHER, /* all for which there is no room */
	PAIR_FIRST,
	PAIR_COUNT = 129,
};

/* Where a direction's next message goes. */
enum tx_path {
	TX_START, /* nothing was sent yet */
	TX_REDIRECT, /* to the peer's socket, past the network stack */
	TX_KERNEL, /* through the network stack */
};

/* Bits of end.flags. */
enum end_flag {
	END_CLIENT = 1, /* it connected; else it was accepted */
	END_CLOSED = 2, /* the connection is over and was added to the totals */
	END_SMALL_FLIGHT = 4, /* Beeline bounds the congestion window: lib/flight.h */
	END_WAITING = 8, /* not enrolled, but may be when the reason has passed (adopt.bpf.c) */
	END_RETURNS = 16, /* it was enrolled before */
	END_HELD = 32, /* its TCP_NOTSENT_LOWAT is Beeline's: lib/flight.h */
	END_KEPT = 64, /* its SO_KEEPALIVE is Beeline's, for a moment: keepalive.bpf.c */
	END_OVERHEARD = 128, /* another sock_ops program had asked for our callbacks before */
};

/* Which file a process executes, as the kernel's own inode tells it; a changed file is another. */
struct program {
	__u64 inode;
	__s64 ctime; /* seconds */
	__u32 ctime_nsec;
	__u32 device; /* super_block.s_dev */
};

/* Socket-local storage of an enrolled socket; what a message needs is in one cache line. Written under the socket lock, but
 * for `retiring`, which bpf/retire.bpf.c sets at any time.
 */
struct end {
	struct handshake own;
	__u64 peer_sk; /* address of the peer's struct sock; only ever read fault-safe */
	__u64 peer_cookie; /* tells whether that memory is still the peer */
	__u64 redirected_bytes; /* sent by this end, past the stack */
	__u64 redirected_msgs;
	__u64 kernel_bytes; /* sent by this end through the stack */
	__u64 enrolled_ns; /* CLOCK_MONOTONIC */
	__u8 tx; /* enum tx_path */
	__u8 tx_reason; /* enum reason, while tx is TX_KERNEL */
	__u8 flags; /* of enum end_flag */
	__u8 retiring; /* enum reason why this end redirects no more; never taken back */
	__u16 empty_at; /* redirected_bytes >> 16 when the peer's queue was last seen empty: lib/peer.h */
	__u8 small_writes; /* in a row: lib/small.h */
	__u8 heard; /* tcp_sock.tcp_mstamp at the last of them */
	struct program program; /* that called connect or listen */
	__u16 pair; /* its element of the map `hists`; PAIR_OTHER until it is known */
	__u16 keepidle_s; /* its own TCP_KEEPIDLE while Beeline's is in force: keepalive.bpf.c; else 0 */
	__u32 sent_us; /* CLOCK_MONOTONIC, of the message that was redirected last; 0 if none is timed */
	__u32 queue_limit; /* of the rules that took it, for what it sends; 0: that of the settings */
	__u32 kept_msgs; /* the low half of redirected_msgs at the last keepalive */
};

/* An element of the map `ends`. */
struct enrolled {
	struct end end;
	struct tally tally;
};

/* Who called connect or listen. */
struct caller {
	struct program program;
	__u32 has_ring; /* not 0: with io_uring */
	__u32 pad;
};

/* What is known of a program. */
enum verdict {
	VERDICT_UNKNOWN,
	VERDICT_NEVER_SPLICES,
	VERDICT_MAY_SPLICE,
	VERDICT_USES_ULP, /* it has asked for kernel TLS, or another upper layer protocol: setsockopt.bpf.c */
};

/* A process and its program: an element of the ring buffer `strangers`, and what the iterator in
 * programs.bpf.c reports.
 */
struct process {
	struct program program;
	__u32 pid; /* in the initial namespace */
	__u32 pad;
};

/* One end of an enrolled connection, as the other one finds it. */
struct side {
	__u64 sk;
	__u64 cookie;
};

/* A socket of which user space wants to know (ends.bpf.c): one that is in the maps by its key, another by where it is. */
struct asked {
	struct handshake own; /* if `side.sk` is 0 */
	struct side side;
};

/* What an end says of itself. */
enum side_flag {
	SIDE_OUT = 1, /* if its connection leaves: it has left the maps */
	SIDE_REDIRECTS = 2, /* it has redirected, or is about to */
	SIDE_SETTLED = 4, /* none of its threads is between verdict and queue */
	SIDES = 8, /* bits of one end in conn.flags */
};

/* Both ends of an enrolled connection; the key is the client's view of the handshake. */
struct conn {
	struct side client;
	struct side server; /* its `sk` is 0 until it is established */
	__u32 flags; /* enum side_flag, the client's and then the server's */
	__u8 leaves; /* enum reason: both ends leave the maps, as TCP's own way is better for them */
	__u8 returns; /* how often it was enrolled again after that */
	__u16 pair; /* element of the map `hists` */
};

/* The addresses of a socket. IPv4 in the first word; ports in host byte order. */
struct endpoints {
	__u32 local_ip[4];
	__u32 remote_ip[4];
	__u16 local_port;
	__u16 remote_port;
	__u16 family; /* AF_INET, AF_INET6 */
	__u16 pad;
};

/* What rules may ask of one end of a connection. */
struct facts {
	struct program program; /* that called connect or listen */
	__u64 cgroup; /* id of the cgroup in which the socket, or its listener, was made */
	struct endpoints endpoints; /* as this end sees them */
	__u32 uid; /* owner of the socket, or of its listener */
	__u32 pad;
};

/* What a rule says of the connections that it lets take the socket path. */
struct rule_options {
	__u32 queue_limit; /* bytes that may wait unread at one reader; 0: those of the settings */
	__u32 at_once; /* not 0: they are enrolled at their handshake or not at all */
};

/* A server's half-finished handshake; the key is the server's view of it. */
struct offer {
	__u64 made_ns; /* CLOCK_MONOTONIC */
	__u32 reason; /* REASON_NONE, or why this handshake must not be enrolled */
	__u32 netns; /* inode number of the server's network namespace */
	__u8 client_waits; /* not 0: the client's end is in the map `waiting` */
	__u8 judged; /* not 0: `facts` is complete; else it has only the program */
	__u8 at_once; /* as in struct rule_options, of the rules that let it pass */
	__u8 pad;
	__u32 queue_limit; /* likewise */
	struct facts facts;
};

/* A connection that may be enrolled when neither end blocks and, if it was before, when it is at rest;
 * the key is the client's view.
 */
struct candidate {
	struct conn conn;
	__u64 not_before_ns; /* CLOCK_MONOTONIC; 0 if it was never enrolled */
	__u32 client_netns; /* inode numbers of network namespaces */
	__u32 server_netns;
	__u32 generation; /* of the rules that let it pass */
	__u32 pad;
};

/* An established socket that a process has, as if it were a server's: what tells its counterpart. */
struct view {
	struct handshake own;
	__u64 socket; /* the inode of its file */
	__u64 inode; /* of the program that the process executes */
	__u32 device;
	__u32 is_newcomer; /* nothing is known of the connection, and it could be enrolled */
};

/* An end of a connection from before the attachment, which user space found to be local and fit. */
struct newcomer {
	struct handshake own;
	struct program program; /* that has the socket */
	__u32 queue_limit; /* as in struct rule_options, of the rules that let it pass */
	__u32 generation; /* of these rules */
	__u32 flags; /* END_CLIENT, or none */
	__u32 pad;
};

enum earlier_limits {
	MAX_NEWCOMERS = 8192, /* at once */
};

enum rule_limits {
	MAX_RULES = 1024,
	RULE_WORDS = MAX_RULES / 64,
	NO_RULE = MAX_RULES, /* the place of what holds where no rule matches */
	RULE_PLACES,
};

/* A set of rules by their places in the order, the first in the lowest bit of the first word. */
struct rule_set {
	__u64 words[RULE_WORDS];
};

/* What rules ask of the two ends, each of which is `local` once. One look-up in the tables finds the
 * rules that accept an answer; those that do not ask accept any.
 */
enum dimension {
	/* In rule_exact. An answer that is not there is not known yet. */
	LOCAL_WORKLOAD, /* cgroup id */
	REMOTE_WORKLOAD,
	LOCAL_PROGRAM,
	REMOTE_PROGRAM,
	/* In rule_ranges, each with an entry for all answers. */
	LOCAL_USER,
	REMOTE_USER,
	LOCAL_ADDRESS, /* IPv4 as IPv6-mapped */
	REMOTE_ADDRESS,
	LOCAL_PORT,
	REMOTE_PORT,
	DIMENSION_COUNT,
};

/* Key of rule_exact; what the dimension does not ask for is 0. */
struct rule_answer {
	__u64 dimension;
	__u64 cgroup;
	struct program program;
};

/* Key of rule_ranges, a longest-prefix-match trie; in network byte order from `bits` on. */
struct rule_range {
	__u32 prefix; /* bits that count, those of the dimension included */
	__u32 dimension;
	__u32 bits[4];
};

/* What is not in the tables of a generation of rules. */
struct rules {
	struct rule_set all; /* as many as there are */
	struct rule_set kernel; /* those that leave a connection to the kernel path */
	__u32 dimensions; /* 1 << enum dimension of those that any rule asks for */
	__u32 otherwise_kernel; /* not 0: so is a connection that no rule matches */
};

/* Per-CPU sums. */
struct totals {
	__u64 enrolled; /* sockets that entered the map; two for a connection */
	__u64 paired; /* connections of which both ends are enrolled */
	__u64 closed; /* enrolled sockets whose connection ended */
	__u64 closed_redirected_bytes; /* what those had sent */
	__u64 closed_redirected_msgs;
	__u64 closed_kernel_bytes;
	__u64 lost_events; /* trace events that found no room */
	__u64 lost_pieces; /* of captured messages, likewise */
	__u64 lost_bytes; /* in these */
	__u64 reasons[REASON_COUNT];
};

enum event_kind {
	EVENT_ESTABLISHED, /* a handshake ended; says whether it is to be enrolled, or why not */
	EVENT_ENROLLED, /* the socket is in the map */
	EVENT_PAIRED, /* both ends are in the map */
	EVENT_REDIRECT_STARTED, /* the first byte of a direction skipped the stack */
	EVENT_KERNEL_PATH, /* a direction goes through the stack from here on */
	EVENT_CLOSED,
	EVENT_KIND_COUNT,
};

/* One element of the ring buffer `events`. */
struct event {
	__u64 at_ns; /* CLOCK_MONOTONIC */
	__u64 cookie; /* socket cookie */
	__u64 bytes; /* EVENT_CLOSED: redirected by this end */
	struct handshake own;
	struct endpoints endpoints;
	__u32 kind; /* enum event_kind */
	__u32 reason; /* enum reason */
	__u32 is_client;
	__u32 netns; /* inode number of the socket's network namespace */
};

enum capture_limits {
	CAPTURE_PIECE = 8192, /* most bytes in a `struct piece` */
	CAPTURE_MAX = 262144, /* most bytes of a message */
};

/* A part of a message that an enrolled socket sent, in front of its bytes: an element of the ring
 * buffer in `captures`.
 */
struct piece {
	__u64 at_ns; /* CLOCK_MONOTONIC */
	__u64 position; /* bytes that this end sent before the message, on either path */
	struct handshake own;
	struct endpoints endpoints;
	__u32 size; /* of the message */
	__u32 offset; /* of this part in it */
	__u32 length; /* of this part */
	__u8 is_client;
	__u8 redirected;
	__u8 pad[2];
};

/* One socket as ends.bpf.c reports it. */
struct end_record {
	struct end end;
	__u64 cookie;
	__u64 cgroup_id;
	__u64 inode; /* of the socket's file; 0 when no process holds it */
	struct endpoints endpoints;
	__u32 netns;
	__u32 uid;
	__u32 unread; /* bytes that wait in the psock queue */
	__u32 state; /* TCP state, include/net/tcp_states.h */
	__u8 has_psock; /* 0: the socket is plain TCP again */
	__u8 pad[3];
	__u32 srtt_us; /* smoothed round-trip time of the kernel path; 0 if TCP has none */
};

/* A process that holds a TCP socket. */
struct holder {
	__u64 inode; /* of the socket's file */
	__u32 pid; /* in the initial namespace */
	char command[16];
	__u8 pad[4];
};

/* A thread that is awake, and was not seen outside of a system call. */
struct thread {
	__u64 user_ns; /* its time in user mode */
	__u32 pid; /* in the initial namespace */
	__u32 tid;
	__s32 call; /* the number of its call; -1 if it sends without one, or numbers mean other calls to it */
	__u8 pad[4];
};

/* With its histograms. */
struct end_report {
	struct end_record record;
	struct tally tally;
};

_Static_assert(sizeof(struct handshake) == 8, "handshake");
_Static_assert(sizeof(struct settings) == 48, "settings");
_Static_assert(__builtin_offsetof(struct end, program) == 64, "end: one cache line for messages");
_Static_assert(sizeof(struct end) == 104, "end");
_Static_assert(sizeof(struct tally) == 336, "tally");
_Static_assert(sizeof(struct hists) == 1512, "hists");
_Static_assert(sizeof(struct program) == 24, "program");
_Static_assert(sizeof(struct process) == 32, "process");
_Static_assert(sizeof(struct conn) == 40, "conn");
_Static_assert(sizeof(struct asked) == 24, "asked");
_Static_assert(sizeof(struct offer) == 104, "offer");
_Static_assert(sizeof(struct rule_options) == 8, "rule_options");
_Static_assert(sizeof(struct candidate) == 64, "candidate");
_Static_assert(sizeof(struct view) == 32, "view");
_Static_assert(sizeof(struct newcomer) == 48, "newcomer");
_Static_assert(sizeof(struct facts) == 80, "facts");
_Static_assert(sizeof(struct rule_answer) == 40, "rule_answer");
_Static_assert(sizeof(struct rule_range) == 24, "rule_range");
_Static_assert(sizeof(struct rules) == 264, "rules");
_Static_assert(sizeof(struct endpoints) == 40, "endpoints");
_Static_assert(sizeof(struct event) == 88, "event");
_Static_assert(sizeof(struct piece) == 80, "piece");
_Static_assert(sizeof(struct end_record) == 192, "end_record");
_Static_assert(sizeof(struct holder) == 32, "holder");
_Static_assert(sizeof(struct thread) == 24, "thread");

#endif
