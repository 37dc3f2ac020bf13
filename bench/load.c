/*
 * Load generator and simulated device for the benchmarks, over epoll, one thread, libc only: Modbus TCP, with --enip
 * EtherNet/IP, with --opcua OPC UA.
 *
 *   load server --listen ADDRESS:PORT          answers from registers, tags or nodes in memory; PORT 0 picks one
 *   load client --connect ADDRESS:PORT ...     closed loop or paced load; prints one JSON object
 *   load guard PROGRAM ARGUMENTS...            runs PROGRAM so that it gets SIGTERM when our parent dies
 *   load wake                                  what it costs here to wake a process, on one core and across two
 *
 * Every answer is compared in full with the answer that the protocol and the memory demand. So a path that is
 * fast because it answers wrongly does not look fast: it has errors.
 *
 * Not here: what is said (modbus.c, enip.c, opcua.c), choosing the paths to compare, repeating, ratios. That is run.py.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "load.h"

enum {
    CLIENTS_MAX = 4096,
    TAGS_MAX = 20,
    NODES_MAX = 100,
};

volatile sig_atomic_t stopping;

static void on_stop(int number) {
    (void)number;
    stopping = 1;
}

static void stop_on_signals(void) {
    struct sigaction action = {.sa_handler = on_stop};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static double cpu_seconds(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

/* ------------------------------------------------------------------------------------------- histogram */

/* Log-linear, as in HDR histograms: 256 steps in each power of two, so a value is off by less than 0.4 %. */
enum { STEP_BITS = 8, STEPS = 1 << STEP_BITS, BUCKETS = (64 - STEP_BITS) * STEPS };
static uint64_t histogram[BUCKETS], recorded, latency_sum, latency_max;

static unsigned bucket_of(uint64_t ns) {
    if (ns < STEPS) return (unsigned)ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(ns) - STEP_BITS + 1;
    return shift * (STEPS / 2) + (unsigned)(ns >> shift);
}

static uint64_t bucket_value(unsigned bucket) {
    if (bucket < STEPS) return bucket;
    unsigned shift = (bucket - STEPS / 2) / (STEPS / 2);
    uint64_t low = (uint64_t)(bucket - shift * (STEPS / 2)) << shift;
    return low + ((uint64_t)1 << shift) / 2;
}

static void record(uint64_t ns) {
    histogram[bucket_of(ns)]++;
    recorded++;
    latency_sum += ns;
    if (ns > latency_max) latency_max = ns;
}

static double quantile_us(double q) {
    uint64_t wanted = (uint64_t)(q * (double)recorded + 0.999999), seen = 0;
    if (!recorded) return 0;
    for (unsigned i = 0; i < BUCKETS; i++)
        if ((seen += histogram[i]) >= wanted && seen) return (double)bucket_value(i) / 1000.0;
    return (double)latency_max / 1000.0;
}

/* ---------------------------------------------------------------------------------------------- client */

static struct {
    uint64_t connection, timeout, transaction, content, exception;
} errors;
static uint64_t transactions, transactions_all, measure_from, measure_until;
static unsigned client_count = 1, alive;
static Asked asked = {.depth = 1, .unit = 1, .tags = 1};
static const Protocol *spoken = &modbus;
static double rate;
static uint64_t interval_ns;

static void drop(Client *c) {
    close(c->fd);
    c->fd = -1;
    alive--;
}

/* Sends as many requests as depth and pace allow, in one segment. */
static void send_requests(Client *c, uint64_t now) {
    uint8_t out[DEPTH_MAX * FRAME_MAX];
    size_t length = 0;
    uint64_t last = measure_until;
    for (unsigned i = 0; i < asked.depth && c->outstanding < asked.depth && now < last && !stopping; i++) {
        Pending *p = &c->pending[i];
        if (p->used) continue;
        if (interval_ns && c->due > now) break;
        p->used = true;
        p->transaction = c->next_transaction++;
        length += spoken->request(c, &asked, p, out + length);
        /* Paced: time runs from when the request was due, so a stall counts for every request that it holds up. */
        p->started = interval_ns ? c->due : now;
        if (interval_ns) c->due += interval_ns;
        c->outstanding++;
    }
    if (!length) return;
    ssize_t sent = send(c->fd, out, length, MSG_NOSIGNAL);
    if (sent != (ssize_t)length) { /* at most 16 small requests under way: a full socket means a broken path */
        errors.connection++;
        drop(c);
    }
}

static bool take_reply(Client *c, const uint8_t *frame, size_t length, uint64_t now) {
    Pending *p = NULL;
    for (unsigned i = 0; i < asked.depth; i++)
        if (c->pending[i].used && c->pending[i].transaction == spoken->transaction(frame)) p = &c->pending[i];
    if (!p) {
        errors.transaction++;
        return false;
    }
    p->used = false;
    c->outstanding--;
    transactions_all++;
    bool right = spoken->right ? spoken->right(c, p, frame, length, &asked)
                               : length == p->length && !memcmp(frame, p->expected, length);
    if (!right) {
        int status = spoken->refusal(p, frame, length);
        if (status < 0) errors.content++;
        else if (!errors.exception++) fprintf(stderr, "load: first refusal: status %d\n", status);
        return true;
    }
    if (now < measure_until && now >= measure_from) {
        transactions++;
        if (p->started >= measure_from) record(now > p->started ? now - p->started : 0);
    }
    return true;
}

static void take_replies(Client *c) {
    ssize_t got = recv(c->fd, c->in + c->in_length, sizeof c->in - c->in_length, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        errors.connection++;
        drop(c);
        return;
    }
    uint64_t now = now_ns();
    c->in_length += (size_t)got;
    size_t at = 0;
    while (c->in_length - at >= spoken->head) {
        size_t length = spoken->size(c->in + at);
        if (!length || length > FRAME_MAX) {
            errors.content++;
            drop(c);
            return;
        }
        if (c->in_length - at < length) break;
        if (!take_reply(c, c->in + at, length, now)) {
            drop(c);
            return;
        }
        at += length;
    }
    c->in_length -= at;
    if (c->in_length && at) memmove(c->in, c->in + at, c->in_length);
    send_requests(c, now);
}

/* What a client says before all else, and waits for. */
static void greet(Client *c) {
    for (size_t length, got; (length = spoken->hello(c, &asked, c->in)); c->greetings++) {
        if (send(c->fd, c->in, length, MSG_NOSIGNAL) < 0) fail("first words: %s", strerror(errno));
        for (got = 0; got < spoken->head || got < spoken->size(c->in);) {
            ssize_t more = recv(c->fd, c->in + got, sizeof c->in - got, 0);
            if (more <= 0) fail("connection %u: no answer to the first words", c->number + 1);
            got += (size_t)more;
        }
        spoken->greeted(c, c->in);
    }
}

static void drop_silent(Client *clients, uint64_t now, uint64_t timeout_ns) {
    for (unsigned n = 0; n < client_count; n++) {
        Client *c = &clients[n];
        for (unsigned i = 0; i < asked.depth && c->fd >= 0; i++)
            if (c->pending[i].used && now > c->pending[i].started + timeout_ns) {
                errors.timeout++;
                drop(c);
            }
    }
}

static double number_option(const char *name, const char *text, double low, double high) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= low && value <= high))
        fail("--%s %s: expected a number from %g to %g", name, text, low, high);
    return value;
}

static void report(double seconds, double cpu, unsigned connected) {
    uint64_t all = errors.connection + errors.timeout + errors.transaction + errors.content + errors.exception;
    printf("{\"clients\": %u, \"connected\": %u, \"depth\": %u, \"write_percent\": %u, \"rate\": %g, \"seconds\": %.6f,\n"
           " \"transactions\": %" PRIu64 ", \"transactions_all\": %" PRIu64 ", \"per_second\": %.1f,\n"
           " \"errors\": %" PRIu64 ", \"error_kinds\": {\"connection\": %" PRIu64 ", \"timeout\": %" PRIu64
           ", \"transaction_id\": %" PRIu64 ", \"content\": %" PRIu64 ", \"exception\": %" PRIu64 "},\n"
           " \"latency_us\": {\"samples\": %" PRIu64 ", \"mean\": %.2f, \"median\": %.2f, \"p90\": %.2f, \"p99\": %.2f, "
           "\"p99_9\": %.2f, \"max\": %.2f},\n"
           " \"generator_cpu_seconds\": %.4f}\n",
           client_count, connected, asked.depth, asked.write_percent, rate, seconds, transactions, transactions_all,
           (double)transactions / seconds, all, errors.connection, errors.timeout, errors.transaction, errors.content,
           errors.exception, recorded, recorded ? (double)latency_sum / (double)recorded / 1000.0 : 0, quantile_us(0.5),
           quantile_us(0.9), quantile_us(0.99), quantile_us(0.999), (double)latency_max / 1000.0, cpu);
}

static int run_client(int argc, char **argv) {
    static const struct option options[] = {
        {"connect", required_argument, 0, 'c'}, {"clients", required_argument, 0, 'n'},
        {"depth", required_argument, 0, 'd'},   {"seconds", required_argument, 0, 's'},
        {"warmup", required_argument, 0, 'w'},  {"writes", required_argument, 0, 'p'},
        {"rate", required_argument, 0, 'r'},    {"unit", required_argument, 0, 'u'},
        {"timeout", required_argument, 0, 't'}, {"enip", no_argument, 0, 'e'},
        {"tags", required_argument, 0, 'g'},    {"opcua", no_argument, 0, 'o'},
        {"nodes", required_argument, 0, 'g'},   {0}};
    const char *connect_to = NULL;
    double seconds = 3, warmup = 0.5, timeout = 3;
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) switch (option) {
        case 'c': connect_to = optarg; break;
        case 'n': client_count = (unsigned)number_option("clients", optarg, 1, CLIENTS_MAX); break;
        case 'd': asked.depth = (unsigned)number_option("depth", optarg, 1, DEPTH_MAX); break;
        case 's': seconds = number_option("seconds", optarg, 0.05, 86400); break;
        case 'w': warmup = number_option("warmup", optarg, 0, 3600); break;
        case 'p': asked.write_percent = (unsigned)number_option("writes", optarg, 0, 100); break;
        case 'r': rate = number_option("rate", optarg, 0, 1e7); break;
        case 'u': asked.unit = (unsigned)number_option("unit", optarg, 0, 255); break;
        case 't': timeout = number_option("timeout", optarg, 0.01, 3600); break;
        case 'e': spoken = &enip; break;
        case 'o': spoken = &opcua; break;
        case 'g': asked.tags = (unsigned)number_option("tags", optarg, 1, NODES_MAX); break;
        default: return 2;
        }
    if (spoken != &modbus && asked.write_percent) fail("--writes: but by Modbus there are only reads");
    if (spoken == &enip && asked.tags > TAGS_MAX) fail("--tags %u: a packet has at most %d", asked.tags, TAGS_MAX);
    if (!connect_to) fail("--connect ADDRESS:PORT is missing");
    struct sockaddr_in address = parse_address(connect_to);
    Client *clients = calloc(client_count, sizeof *clients);
    if (!clients) fail("out of memory");
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    for (unsigned n = 0; n < client_count; n++) {
        Client *c = &clients[n];
        c->number = n;
        c->random = 2463534242u + n * 7919u;
        c->next_transaction = (uint16_t)(n * 257u);
        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&address, sizeof address))
            fail("connection %u to %s: %s", n + 1, connect_to, strerror(errno));
        no_delay(c->fd);
        greet(c);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    }
    alive = client_count;

    uint64_t start = now_ns(), timeout_ns = (uint64_t)(timeout * 1e9), next_check = start + 100000000u;
    measure_from = start + (uint64_t)(warmup * 1e9);
    measure_until = measure_from + (uint64_t)(seconds * 1e9);
    interval_ns = rate > 0 ? (uint64_t)(1e9 * client_count / rate) : 0;
    for (unsigned n = 0; n < client_count; n++) {
        if (interval_ns) clients[n].due = start + interval_ns * n / client_count;
        send_requests(&clients[n], now_ns());
    }

    struct epoll_event events[EVENTS];
    for (;;) {
        uint64_t now = now_ns(), wait = next_check > now ? next_check - now : 0;
        bool draining = now >= measure_until || stopping;
        if (interval_ns)
            for (unsigned n = 0; n < client_count; n++) {
                Client *c = &clients[n];
                if (c->fd < 0 || c->outstanding >= asked.depth || draining) continue;
                if (c->due <= now) send_requests(c, now);
                if (c->fd >= 0 && c->outstanding < asked.depth) {
                    uint64_t left = c->due > now ? c->due - now : 0;
                    if (left < wait) wait = left;
                }
            }
        if (now >= next_check) {
            drop_silent(clients, now, timeout_ns);
            next_check = now + 100000000u;
        }
        if (!alive) break;
        if (draining) {
            bool quiet = true;
            for (unsigned n = 0; n < client_count; n++) quiet = quiet && (clients[n].fd < 0 || !clients[n].outstanding);
            if (quiet || now > measure_until + timeout_ns) break;
        }
        struct timespec limit = {.tv_sec = (time_t)(wait / 1000000000u), .tv_nsec = (long)(wait % 1000000000u)};
        int ready = epoll_pwait2(epoll, events, EVENTS, &limit, NULL);
        for (int i = 0; i < ready; i++) {
            Client *c = events[i].data.ptr;
            if (c->fd >= 0) take_replies(c);
        }
    }
    report(seconds, cpu_seconds(), client_count);
    return errors.connection + errors.timeout + errors.transaction + errors.content + errors.exception ? 1 : 0;
}

/* ----------------------------------------------------------------------------------------------- guard */

static int run_guard(int argc, char **argv) {
    if (argc < 2) fail("guard: which program?");
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() == 1) return 1; /* the parent died before the line above */
    execvp(argv[1], argv + 1);
    fail("can't run %s: %s", argv[1], strerror(errno));
}

/* ------------------------------------------------------------------------------------------------ wake */

static bool pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

/* Two processes hand one byte to and fro over pipes. Records the time of one way: a write, a wake-up, a read. */
static void hand_over(int core_a, int core_b) {
    enum { TURNS = 4000 };
    int there[2], back[2];
    char byte = 0;
    memset(histogram, 0, sizeof histogram);
    recorded = latency_sum = latency_max = 0;
    if (pipe(there) || pipe(back)) fail("pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) fail("fork: %s", strerror(errno));
    if (!child) {
        close(there[1]);
        close(back[0]);
        pin(core_b);
        while (read(there[0], &byte, 1) == 1 && write(back[1], &byte, 1) == 1) {}
        _exit(0);
    }
    close(there[0]);
    close(back[1]);
    pin(core_a);
    for (int i = 0; i < TURNS; i++) {
        uint64_t start = now_ns();
        if (write(there[1], &byte, 1) != 1 || read(back[0], &byte, 1) != 1) break;
        if (i >= TURNS / 4) record((now_ns() - start) / 2);
    }
    close(there[1]);
    close(back[0]);
    waitpid(child, NULL, 0);
}

static int run_wake(void) {
    cpu_set_t allowed;
    int cores[2], found = 0;
    sched_getaffinity(0, sizeof allowed, &allowed);
    for (int core = 0; core < CPU_SETSIZE && found < 2; core++)
        if (CPU_ISSET(core, &allowed)) cores[found++] = core;
    hand_over(cores[0], cores[0]);
    printf("{\"same_core_us\": %.2f", quantile_us(0.5));
    if (found == 2) {
        hand_over(cores[0], cores[1]);
        printf(", \"across_cores_us\": %.2f", quantile_us(0.5));
    }
    puts("}");
    return 0;
}

int main(int argc, char **argv) {
    const char *mode = argc > 1 ? argv[1] : "";
    if (!strcmp(mode, "guard")) return run_guard(argc - 1, argv + 1);
    if (!strcmp(mode, "wake")) return run_wake();
    stop_on_signals();
    if (!strcmp(mode, "server")) return run_server(argc - 1, argv + 1);
    if (!strcmp(mode, "client")) return run_client(argc - 1, argv + 1);
    fputs("usage: load server|client|guard|wake ...; the options are at the top of load.c\n", stderr);
    return 2;
}
