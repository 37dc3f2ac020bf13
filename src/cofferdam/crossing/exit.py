"""What the exit code of a process of the gate's says.

Not here: what its gate makes of it (gate.crew.supervisor).
"""

from __future__ import annotations

EXIT_STOPPED, EXIT_GATE_GONE, EXIT_PEER_GONE, EXIT_VIOLATION, EXIT_BUG, EXIT_REFUSED = 0, 2, 3, 4, 5, 6
