/* What the load generator (load.c), the simulated device (device.c) and the protocols (modbus.c, enip.c, opcua.c) share. */
#ifndef LOAD_H
#define LOAD_H
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    EVENTS = 256,
    DEPTH_MAX = 16,    /* Messaging guide 1.0b: a client may have 1 to 16 requests under way */
    FRAME_MAX = 4096,  /* a request of the generator, and its answer */
    ANSWER_MAX = 4096, /* an answer of the device */
    WRITTEN = 10,
};

typedef struct {
    bool used;
    uint16_t transaction;
    uint64_t started;
    size_t length;
    uint8_t expected[FRAME_MAX]; /* the only right answer, byte by byte */
} Pending;

typedef struct {
    int fd;
    unsigned number, outstanding, greetings; /* `greetings`: what was said at first and answered */
    uint16_t next_transaction;
    uint32_t random, session;
    uint64_t due; /* paced load: when the next request should leave */
    size_t in_length;
    uint16_t written[WRITTEN];
    uint64_t kept[14]; /* what else the protocol keeps of it */
    Pending pending[DEPTH_MAX];
    uint8_t in[8192];
} Client;

/* What is asked. */
typedef struct {
    unsigned write_percent, depth, unit, tags;
} Asked;

/* A protocol, at both ends. */
typedef struct {
    size_t head;                                  /* bytes after which a frame's size is known */
    size_t (*size)(const uint8_t *frame);         /* of the whole frame; 0: this is not the protocol */
    void (*prepare)(void);                        /* the device's memory */
    size_t (*answer)(uint32_t *kept, const uint8_t *frame, size_t length, uint8_t *out); /* `kept`: of the session */
    size_t (*hello)(Client *, const Asked *, uint8_t *out); /* what a client says first, and after each; 0: nothing */
    void (*greeted)(Client *, const uint8_t *frame);        /* the answer to it, as it is expected */
    size_t (*request)(Client *, const Asked *, Pending *, uint8_t *out); /* and what must be answered; its length */
    unsigned (*transaction)(const uint8_t *frame);
    /* Whether an answer is what it has to be; NULL: it is, if it is what `request` has said. */
    bool (*right)(Client *, Pending *, const uint8_t *frame, size_t length, const Asked *);
    int (*refusal)(const Pending *, const uint8_t *frame, size_t length); /* the status of a refusal; -1: it is none */
} Protocol;

extern const Protocol modbus, enip, opcua;
extern volatile sig_atomic_t stopping;

static inline uint32_t next_random(Client *c) { /* xorshift: same requests in every run */
    c->random ^= c->random << 13;
    c->random ^= c->random >> 17;
    return c->random ^= c->random << 5;
}

int run_server(int argc, char **argv);

__attribute__((format(printf, 1, 2), noreturn)) static inline void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(2);
}

static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void put16(uint8_t *at, unsigned value) {
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static inline unsigned get16(const uint8_t *at) { return (unsigned)at[0] << 8 | at[1]; }

static inline struct sockaddr_in parse_address(const char *text) {
    char host[64];
    const char *colon = strrchr(text, ':');
    if (!colon || (size_t)(colon - text) >= sizeof host) fail("%s: expected ADDRESS:PORT, as in 127.0.0.1:5020", text);
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = 0;
    char *end;
    long port = strtol(colon + 1, &end, 10);
    if (*end || end == colon + 1 || port < 0 || port > 65535) fail("%s: the port is a number from 0 to 65535", text);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, host, &address.sin_addr) != 1) fail("%s: expected an IPv4 address, found %s", text, host);
    return address;
}

static inline void no_delay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

#endif
