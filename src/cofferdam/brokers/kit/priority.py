"""A real-time priority for the calling process: it runs before whatever has none as soon as it has something to do.

The kernel leaves the others a twentieth of each second (kernel.sched_rt_runtime_us), so that a part that is kept busy
cannot take the machine with it. Not here: who may (enforce.isolation), who asks for it (policy).
"""

from __future__ import annotations

import os

from cofferdam.enforce.profile import REALTIME_PRIORITY

Fact = tuple[str, bool, str]
NAME = "real-time priority"


def raised() -> Fact:
    """Takes it, before the filter closes, if the launcher could not give it. What `status` says of it."""
    try:
        if os.sched_getscheduler(0) != os.SCHED_RR:
            os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(REALTIME_PRIORITY))
    except OSError as error:
        why = error.strerror or str(error)
        return NAME, False, f"asked for by the policy, and the kernel refuses it ({why}): see docs/performance.md"
    return NAME, True, f"round robin, priority {REALTIME_PRIORITY}"
