"""asyncssh by itself: what it would ask the machine, it is told before the filter is on.

Not here: the server and the client (outer_ssh, inner_ssh), which lean on it.
"""

from __future__ import annotations

import logging
import os


def alone() -> None:
    """No account and no home of this machine is looked up, and no client is told of on stderr."""
    os.environ["LOGNAME"] = "cofferdam"
    os.environ["HOME"] = "/nonexistent"
    logging.disable(logging.CRITICAL)
