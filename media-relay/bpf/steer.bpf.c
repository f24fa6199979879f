// Brings the packets of all open media ports to one socket per worker and address: a call then needs an entry in a table, not four
// sockets, and the worker reads what came for any of its calls with one system call.
//
// Runs where the kernel looks for the socket of a datagram (BPF_PROG_TYPE_SK_LOOKUP, Linux 5.9), after connected sockets have been
// asked. Ports that are not in the table are none of our business.

#include <linux/bpf.h>

#define SEC(name) __attribute__((section(name), used))
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

// As `Entry` in src/steering.rs.
struct entry {
    __u32 socket;
    __u32 window_packets;
    __u64 window_start;
    __u64 dropped;
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
volatile const __u32 WINDOW_LIMIT = 0;

SEC("sk_lookup")
int steer(struct bpf_sk_lookup *ctx) {
    if (ctx->protocol != IPPROTO_UDP)
        return SK_PASS;
    // All fields are read in any case: only so does the compiler leave each read at an offset that the verifier can see.
    __u32 ip4 = READ(ctx->local_ip4);
    __u32 ip6[] = {READ(ctx->local_ip6[0]), READ(ctx->local_ip6[1]), READ(ctx->local_ip6[2]), READ(ctx->local_ip6[3])};
    struct key key = {.address = {ip6[0], ip6[1], ip6[2], ip6[3]}, .port = ctx->local_port};
    if (ctx->family == AF_INET) {
        key.address[0] = key.address[1] = 0;
        key.address[2] = __builtin_bswap32(0xffff);
        key.address[3] = ip4;
    }
    struct entry *entry = bpf_map_lookup_elem(&PORTS, &key);
    if (!entry)
        return SK_PASS;
    __u64 now = bpf_ktime_get_ns();
    if (now - entry->window_start >= WINDOW_NS) {
        entry->window_start = now;
        entry->window_packets = 0;
    }
    if (++entry->window_packets > WINDOW_LIMIT) {
        entry->dropped++;
        return SK_DROP;
    }
    __u32 socket = entry->socket;
    void *sk = bpf_map_lookup_elem(&SOCKETS, &socket);
    if (!sk)
        return SK_PASS;
    long failed = bpf_sk_assign(ctx, sk, 0);
    bpf_sk_release(sk);
    return failed ? SK_DROP : SK_PASS;
}

// bpf_sk_assign needs nothing of the kernel's licence; whoever loads both may choose.
char LICENSE[] SEC("license") = "Dual MIT/GPL";
