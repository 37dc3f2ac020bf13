"""System-call numbers by processor, for the calls that filters name. Data only.

x86_64: arch/x86/entry/syscalls/syscall_64.tbl. aarch64: include/uapi/asm-generic/unistd.h. A call that a processor does
not have (open on aarch64) is not in its table.
"""

from __future__ import annotations

from typing import Final

NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8,
        "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14,
        "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21,
        "pipe": 22, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "nanosleep": 35, "getpid": 39,
        "socket": 41, "connect": 42, "accept": 43, "sendto": 44, "recvfrom": 45, "sendmsg": 46, "recvmsg": 47,
        "shutdown": 48, "bind": 49, "listen": 50, "getsockname": 51, "getpeername": 52, "socketpair": 53,
        "setsockopt": 54, "getsockopt": 55, "clone": 56, "fork": 57, "vfork": 58, "execve": 59, "exit": 60,
        "kill": 62, "uname": 63, "fcntl": 72, "fsync": 74, "fdatasync": 75, "ftruncate": 77, "getcwd": 79,
        "rename": 82, "mkdir": 83, "rmdir": 84, "unlink": 87, "symlink": 88, "readlink": 89, "chmod": 90,
        "fchmod": 91, "fchown": 93, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99, "ptrace": 101, "getuid": 102,
        "getgid": 104, "setuid": 105, "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131,
        "statfs": 137, "fstatfs": 138, "prctl": 157, "mount": 165, "umount2": 166, "init_module": 175, "gettid": 186,
        "tkill": 200, "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "restart_syscall": 219,
        "fadvise64": 221, "clock_gettime": 228, "clock_nanosleep": 230, "exit_group": 231, "epoll_wait": 232,
        "epoll_ctl": 233, "tgkill": 234, "add_key": 248, "keyctl": 250, "openat": 257, "mkdirat": 258, "mknodat": 259,
        "newfstatat": 262, "unlinkat": 263, "renameat": 264, "linkat": 265, "symlinkat": 266, "readlinkat": 267,
        "faccessat": 269, "unshare": 272, "set_robust_list": 273, "epoll_pwait": 281, "fallocate": 285,
        "accept4": 288, "epoll_create1": 291, "perf_event_open": 298, "recvmmsg": 299, "prlimit64": 302,
        "open_by_handle_at": 304, "sendmmsg": 307, "setns": 308, "process_vm_readv": 310, "process_vm_writev": 311,
        "renameat2": 316,
        "seccomp": 317, "getrandom": 318, "memfd_create": 319, "bpf": 321, "execveat": 322, "userfaultfd": 323,
        "pkey_mprotect": 329, "statx": 332, "rseq": 334, "io_uring_setup": 425, "io_uring_enter": 426,
        "io_uring_register": 427, "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438,
        "faccessat2": 439, "epoll_pwait2": 441, "landlock_create_ruleset": 444, "landlock_add_rule": 445,
        "landlock_restrict_self": 446,
    },
    "aarch64": {
        "getcwd": 17, "epoll_create1": 20, "epoll_ctl": 21, "epoll_pwait": 22, "dup": 23, "fcntl": 25, "ioctl": 29,
        "mknodat": 33, "mkdirat": 34, "unlinkat": 35, "symlinkat": 36, "linkat": 37, "renameat": 38, "umount2": 39,
        "mount": 40, "statfs": 43, "fstatfs": 44, "ftruncate": 46, "fallocate": 47, "faccessat": 48, "fchmod": 52,
        "fchown": 55, "openat": 56, "close": 57, "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "readv": 65,
        "writev": 66, "pread64": 67, "pwrite64": 68, "ppoll": 73, "readlinkat": 78, "newfstatat": 79, "fstat": 80,
        "fsync": 82, "fdatasync": 83, "exit": 93, "exit_group": 94, "unshare": 97, "futex": 98, "set_robust_list": 99,
        "nanosleep": 101, "init_module": 105, "clock_gettime": 113, "clock_nanosleep": 115, "ptrace": 117,
        "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "kill": 129, "tkill": 130,
        "tgkill": 131, "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139,
        "setuid": 146, "uname": 160, "getrusage": 165, "prctl": 167, "gettimeofday": 169, "getpid": 172,
        "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179,
        "socket": 198, "socketpair": 199, "bind": 200, "listen": 201, "accept": 202, "connect": 203,
        "getsockname": 204, "getpeername": 205, "sendto": 206, "recvfrom": 207, "setsockopt": 208, "getsockopt": 209,
        "shutdown": 210, "sendmsg": 211, "recvmsg": 212, "brk": 214, "munmap": 215, "mremap": 216, "add_key": 217,
        "keyctl": 219, "clone": 220, "execve": 221, "mmap": 222, "fadvise64": 223, "mprotect": 226, "madvise": 233,
        "perf_event_open": 241, "accept4": 242, "recvmmsg": 243, "prlimit64": 261,
        "open_by_handle_at": 265, "setns": 268, "sendmmsg": 269, "process_vm_readv": 270, "process_vm_writev": 271,
        "renameat2": 276, "seccomp": 277,
        "getrandom": 278, "memfd_create": 279, "bpf": 280, "execveat": 281, "userfaultfd": 282, "pkey_mprotect": 288,
        "statx": 291, "rseq": 293, "io_uring_setup": 425, "io_uring_enter": 426, "io_uring_register": 427,
        "pidfd_open": 434, "clone3": 435, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439, "epoll_pwait2": 441,
        "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
    },
}  # fmt: skip
