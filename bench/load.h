/* What the load generator (load.c) and the simulated device (device.c) share. */
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
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    REGISTERS = 65536,
    MBAP = 7,
    ADU_MAX = 260,
    EVENTS = 256,
};

extern volatile sig_atomic_t stopping;

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

/* What a register holds before anyone writes it. Neighbours differ in both bytes, so a shifted answer shows. */
static inline uint16_t initial(unsigned address) { return (uint16_t)((address * 2654435761u) >> 13); }

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
