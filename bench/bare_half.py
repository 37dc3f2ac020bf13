"""A half that puts no filter on itself.

Started by bare.py, on the compiled build if there is one, for measuring, and by nothing else.
"""

import sys

from cofferdam.brokers.half import main
from cofferdam.enforce import sandbox

WHY = "taken out by bench/bare.py, to measure what it costs"
sandbox.confine = lambda *_, **__: (("system-call filter", False, WHY), ("landlock", False, WHY))
sys.exit(main())
