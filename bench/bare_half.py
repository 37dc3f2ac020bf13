"""A half that puts no filter on itself: `python -I bare_half.py FOLDER ...`; FOLDER: of the compiled build, or `-`.

Started by bare.py, for measuring, and by nothing else.
"""

import sys

folder = sys.argv.pop(1)
if folder != "-":
    sys.path.insert(0, folder)

from cofferdam.brokers.half import main  # noqa: E402 - from the compiled build, if there is one
from cofferdam.enforce import sandbox  # noqa: E402

WHY = "taken out by bench/bare.py, to measure what it costs"
sandbox.confine = lambda profile, store=None, reads=(): (("system-call filter", False, WHY), ("landlock", False, WHY))
sys.exit(main())
