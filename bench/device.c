/* The simulated device: a Modbus TCP server over epoll in one thread, so fast that it is not what is measured. */
#define _GNU_SOURCE
#include "load.h"

enum { SERVER_BUFFER = 16384 };

typedef struct {
    int fd;
    bool writing; /* registered for EPOLLOUT: the peer does not take its answers, so nothing more is read */
    size_t in_length, out_start, out_length;
    uint8_t in[SERVER_BUFFER];
    uint8_t out[SERVER_BUFFER + ADU_MAX];
} Session;

static uint16_t registers[REGISTERS];
static uint8_t coils[REGISTERS];

/* Answers one request PDU of `length` bytes; returns the length of the response PDU. V1.1b3, section 6. */
static size_t answer_pdu(const uint8_t *pdu, size_t length, uint8_t *out) {
    unsigned function = pdu[0], exception = 3;
    if (length < 5) goto refuse;
    unsigned address = get16(pdu + 1), count = get16(pdu + 3);
    out[0] = (uint8_t)function;
    switch (function) {
    case 1:
    case 2:
        if (length != 5 || count < 1 || count > 2000) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        out[1] = (uint8_t)((count + 7) / 8);
        memset(out + 2, 0, out[1]);
        for (unsigned i = 0; i < count; i++) out[2 + i / 8] |= (uint8_t)(coils[address + i] << (i % 8));
        return 2u + out[1];
    case 3:
    case 4:
        if (length != 5 || count < 1 || count > 125) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        out[1] = (uint8_t)(2 * count);
        for (unsigned i = 0; i < count; i++) put16(out + 2 + 2 * i, registers[address + i]);
        return 2u + out[1];
    case 5:
        if (length != 5 || (count != 0 && count != 0xFF00)) goto refuse;
        coils[address] = count != 0;
        memcpy(out, pdu, 5);
        return 5;
    case 6:
        if (length != 5) goto refuse;
        registers[address] = (uint16_t)count;
        memcpy(out, pdu, 5);
        return 5;
    case 15:
        if (length < 6 || count < 1 || count > 1968 || pdu[5] != (count + 7) / 8 || length != 6u + pdu[5]) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        for (unsigned i = 0; i < count; i++) coils[address + i] = pdu[6 + i / 8] >> (i % 8) & 1;
        memcpy(out, pdu, 5);
        return 5;
    case 16:
        if (length < 6 || count < 1 || count > 123 || pdu[5] != 2 * count || length != 6u + pdu[5]) goto refuse;
        if (address + count > REGISTERS) goto bad_address;
        for (unsigned i = 0; i < count; i++) registers[address + i] = (uint16_t)get16(pdu + 6 + 2 * i);
        memcpy(out, pdu, 5);
        return 5;
    default:
        exception = 1;
        goto refuse;
    }
bad_address:
    exception = 2;
refuse:
    out[0] = (uint8_t)(function | 0x80);
    out[1] = (uint8_t)exception;
    return 2;
}

/* Answers every whole ADU in the input for which there is room. False: the peer does not speak Modbus TCP. */
static bool answer_all(Session *s) {
    size_t at = 0;
    while (s->in_length - at >= MBAP && s->out_length + ADU_MAX <= sizeof s->out) {
        const uint8_t *adu = s->in + at;
        unsigned length = get16(adu + 4);
        if (get16(adu + 2) != 0 || length < 2 || length > 254) return false;
        if (s->in_length - at < 6 + length) break;
        uint8_t *out = s->out + s->out_length;
        size_t pdu = answer_pdu(adu + MBAP, length - 1, out + MBAP);
        memcpy(out, adu, 4);
        put16(out + 4, (unsigned)pdu + 1);
        out[6] = adu[6];
        s->out_length += MBAP + pdu;
        at += 6 + length;
    }
    if (at) {
        s->in_length -= at;
        memmove(s->in, s->in + at, s->in_length);
    }
    return true;
}

static bool flush(int epoll, Session *s) {
    while (s->out_start < s->out_length) {
        ssize_t sent = send(s->fd, s->out + s->out_start, s->out_length - s->out_start, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EINTR) continue;
            if (errno != EAGAIN) return false;
            if (!s->writing) {
                struct epoll_event event = {.events = EPOLLOUT, .data.ptr = s};
                epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
                s->writing = true;
            }
            return true;
        }
        s->out_start += (size_t)sent;
    }
    s->out_start = s->out_length = 0;
    if (s->writing) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = s};
        epoll_ctl(epoll, EPOLL_CTL_MOD, s->fd, &event);
        s->writing = false;
    }
    return true;
}

/* One read, its answers in one send. False: the session is over. */
static bool serve(int epoll, Session *s) {
    if (s->writing) {
        if (!flush(epoll, s)) return false;
        if (s->writing) return true;
    } else {
        ssize_t got = recv(s->fd, s->in + s->in_length, sizeof s->in - s->in_length, 0);
        if (got < 0) return errno == EAGAIN || errno == EINTR;
        if (got == 0) return false;
        s->in_length += (size_t)got;
    }
    do {
        size_t before = s->in_length;
        if (!answer_all(s) || !flush(epoll, s)) return false;
        if (s->in_length == before) break;
    } while (!s->writing);
    return true;
}

int run_server(int argc, char **argv) {
    static const struct option options[] = {{"listen", required_argument, 0, 'l'}, {0}};
    const char *listen_at = "127.0.0.1:0";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option != 'l') return 2;
        listen_at = optarg;
    }
    struct sockaddr_in address = parse_address(listen_at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        fail("can't listen on %s: %s", listen_at, strerror(errno));
    socklen_t size = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &size);
    for (unsigned i = 0; i < REGISTERS; i++) {
        registers[i] = initial(i);
        coils[i] = registers[i] & 1;
    }
    printf("{\"listening\": %u}\n", ntohs(address.sin_port));
    fflush(stdout);

    int epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    while (!stopping) {
        int ready = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            Session *s = events[i].data.ptr;
            if (!s) {
                int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
                if (fd < 0) continue;
                no_delay(fd);
                s = calloc(1, sizeof *s);
                if (!s) fail("out of memory");
                s->fd = fd;
                event = (struct epoll_event){.events = EPOLLIN, .data.ptr = s};
                epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
            } else if (!serve(epoll, s)) {
                close(s->fd);
                free(s);
            }
        }
    }
    return 0;
}
