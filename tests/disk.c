/* For tests: stands before the C library's calls that change files whose path has DISK_FILE in it, and counts them.

   At call number DISK_AT, DISK_DO says what happens: "kill" (the process is gone before the call), "killed" (after it),
   "eio" (this call and, of its kind, every later one fails), "enospc", "erofs" (the same with another error), "slow" (this
   call takes three seconds). With DISK_ONLY the
   calls of that name alone are counted. Each counted call is written to descriptor DISK_TELL, if it is given: its name,
   then a newline. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long seen;
static char failed[32];

static int concerns(int fd) {
    const char *part = getenv("DISK_FILE");
    char link[64], path[4096];
    ssize_t length;
    if (!part)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

/* 0: the call is made as always; 1: it fails, errno is set; 2: it is made, and then the process is killed. */
static int comes(const char *name, int fd) {
    const char *only = getenv("DISK_ONLY"), *act = getenv("DISK_DO"), *at = getenv("DISK_AT"), *tell = getenv("DISK_TELL");
    if (!concerns(fd) || (only && strcmp(only, name)))
        return 0;
    seen++;
    if (tell) {
        char line[64];
        int length = snprintf(line, sizeof line, "%s\n", name);
        ssize_t (*put)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
        put(atoi(tell), line, (size_t)length);
    }
    if (!act || !at)
        return 0;
    if (failed[0] && !strcmp(failed, name)) {
        errno = !strcmp(act, "enospc") ? ENOSPC : !strcmp(act, "erofs") ? EROFS : EIO;
        return 1;
    }
    if (seen != atol(at))
        return 0;
    if (!strcmp(act, "kill"))
        raise(SIGKILL);
    if (!strcmp(act, "killed"))
        return 2;
    if (!strcmp(act, "slow")) {
        poll(NULL, 0, 3000);
        return 0;
    }
    strncpy(failed, name, sizeof failed - 1);
    errno = !strcmp(act, "enospc") ? ENOSPC : !strcmp(act, "erofs") ? EROFS : EIO;
    return 1;
}

#define AROUND(type, name, declared, passed, fd)                                                                        \
    type name declared {                                                                                                \
        type(*real) declared = dlsym(RTLD_NEXT, #name);                                                                 \
        int what = comes(#name, fd);                                                                                    \
        type got;                                                                                                       \
        if (what == 1)                                                                                                  \
            return -1;                                                                                                  \
        got = real passed;                                                                                              \
        if (what == 2)                                                                                                  \
            raise(SIGKILL);                                                                                             \
        return got;                                                                                                     \
    }

AROUND(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), fd)
AROUND(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), fd)
AROUND(int, fdatasync, (int fd), (fd), fd)
AROUND(int, fsync, (int fd), (fd), fd)
AROUND(int, ftruncate64, (int fd, off64_t size), (fd, size), fd)
