// Brings the packets of all open media ports to one socket per worker and address: a call then needs an entry in a table, not four
// sockets, and the worker reads what came for any of its calls with one system call.
//
// Each address has two such sockets: one for whom a port expects, one for strangers, so that however many of them send to a port, or to
// all ports, its call loses nothing. Who is expected is the learnt source of the port's call, or, before one is learnt, its signalled
// address and the host that it signals from.
//
// Runs where the kernel looks for the socket of a datagram (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9), after connected sockets have been
// asked. Ports that are not in the table are none of our business.

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif
#define UINT(name, value) int (*name)[value]

static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static long (*bpf_sk_assign)(struct bpf_sk_lookup *ctx, void *sk, __u64 flags) = (void *)BPF_FUNC_sk_assign;
static long (*bpf_sk_release)(void *sk) = (void *)BPF_FUNC_sk_release;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;

#define READ(field) (*(volatile __u32 *)&(field))

#define AF_INET 2
#define IPPROTO_UDP 17

// An IPv4 address stands in its IPv6-mapped form. The layout is that of `Key` in src/steering.rs.
struct key {
    __u32 address[4];
    __u32 port;
};

// As `Source` in src/steering.rs: zeros are nobody, port 0 is any port of the host.
struct source {
    __u32 address[4];
    __u32 port;
};

// As `Entry` in src/steering.rs.
struct entry {
    __u64 window_start;
    __u64 dropped;
    __u32 window_expected;
    __u32 window_strangers;
    __u32 socket;
    __u32 strangers;
    struct source expected[2];
};

struct {
    UINT(type, BPF_MAP_TYPE_HASH);
    UINT(map_flags, BPF_F_NO_PREALLOC);
    UINT(max_entries, 1); // set when loaded
    struct key *key;
    struct entry *value;
} PORTS SEC(".maps");

struct {
    UINT(type, BPF_MAP_TYPE_SOCKMAP);
    UINT(max_entries, 1); // set when loaded
    __u32 *key;
    __u32 *value;
} SOCKETS SEC(".maps");

// A flood at one port must not crowd the other calls out of the socket that they share: so many packets a window pass. Two CPUs that
// count at once may let a few more through.
#define WINDOW_NS 100000000
volatile const __u32 EXPECTED_LIMIT = 0;
volatile const __u32 STRANGERS_LIMIT = 0;

static __always_inline int is_from(const struct source *source, const __u32 *address, __u32 port) {
    return source->address[0] == address[0] && source->address[1] == address[1] && source->address[2] == address[2] &&
           source->address[3] == address[3] && (source->port == 0 || source->port == port);
}

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx) {
    if (ctx->protocol != IPPROTO_UDP)
        return SK_PASS;
    // All fields are read in any case: only so does the compiler leave each read at an offset that the verifier can see.
    __u32 ip4 = READ(ctx->local_ip4);
    __u32 ip6[] = {READ(ctx->local_ip6[0]), READ(ctx->local_ip6[1]), READ(ctx->local_ip6[2]), READ(ctx->local_ip6[3])};
    __u32 remote4 = READ(ctx->remote_ip4);
    __u32 remote[] = {READ(ctx->remote_ip6[0]), READ(ctx->remote_ip6[1]), READ(ctx->remote_ip6[2]), READ(ctx->remote_ip6[3])};
    __u32 remote_port = __builtin_bswap16(*(volatile __u16 *)&ctx->remote_port);
    struct key key = {.address = {ip6[0], ip6[1], ip6[2], ip6[3]}, .port = ctx->local_port};
    if (ctx->family == AF_INET) {
        key.address[0] = key.address[1] = remote[0] = remote[1] = 0;
        key.address[2] = remote[2] = __builtin_bswap32(0xffff);
        key.address[3] = ip4;
        remote[3] = remote4;
    }
    struct entry *entry = bpf_map_lookup_elem(&PORTS, &key);
    if (!entry)
        return SK_PASS;
    __u64 now = bpf_ktime_get_ns();
    if (now - entry->window_start >= WINDOW_NS) {
        entry->window_start = now;
        entry->window_expected = entry->window_strangers = 0;
    }
    int is_expected =
        is_from(&entry->expected[0], remote, remote_port) || is_from(&entry->expected[1], remote, remote_port);
    if (is_expected ? ++entry->window_expected > EXPECTED_LIMIT : ++entry->window_strangers > STRANGERS_LIMIT) {
        entry->dropped++;
        return SK_DROP;
    }
    __u32 socket = is_expected ? entry->socket : entry->strangers;
    void *sk = bpf_map_lookup_elem(&SOCKETS, &socket);
    if (!sk)
        return SK_PASS;
    long failed = bpf_sk_assign(ctx, sk, 0);
    bpf_sk_release(sk);
    return failed ? SK_DROP : SK_PASS;
}

// bpf_sk_assign needs nothing of the kernel's licence; whoever loads both may choose.
char LICENSE[] SEC("license") = "Dual MIT/GPL";
