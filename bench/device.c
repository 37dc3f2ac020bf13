/* The simulated device: a server over epoll in one thread, so fast that it is not what is measured. */
#define _GNU_SOURCE
#include "load.h"

enum { SERVER_BUFFER = 16384 };

typedef struct {
    int fd;
    bool writing; /* registered for EPOLLOUT: the peer does not take its answers, so nothing more is read */
    size_t in_length, out_start, out_length;
    uint32_t kept[2]; /* what the protocol keeps of it */
    uint8_t in[SERVER_BUFFER];
    uint8_t out[SERVER_BUFFER + ANSWER_MAX];
} Session;

static const Protocol *spoken = &modbus;

/* Answers every whole frame in the input for which there is room. False: the peer does not speak the protocol. */
static bool answer_all(Session *s) {
    size_t at = 0;
    while (s->in_length - at >= spoken->head && s->out_length + ANSWER_MAX <= sizeof s->out) {
        size_t length = spoken->size(s->in + at);
        if (!length) return false;
        if (s->in_length - at < length) break;
        s->out_length += spoken->answer(s->kept, s->in + at, length, s->out + s->out_length);
        at += length;
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
    static const struct option options[] = {
        {"listen", required_argument, 0, 'l'}, {"enip", no_argument, 0, 'e'}, {"opcua", no_argument, 0, 'o'}, {0}};
    const char *listen_at = "127.0.0.1:0";
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (option == 'l') listen_at = optarg;
        else if (option == 'e') spoken = &enip;
        else if (option == 'o') spoken = &opcua;
        else return 2;
    }
    struct sockaddr_in address = parse_address(listen_at);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 4096))
        fail("can't listen on %s: %s", listen_at, strerror(errno));
    socklen_t size = sizeof address;
    getsockname(listener, (struct sockaddr *)&address, &size);
    spoken->prepare();
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
