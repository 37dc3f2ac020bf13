"""The site's own YARA rules, by yara-x, which is an extra of its own: without it nothing that needs it passes.

Not here: clamd (kit.clamd), where rules come from (the policy names a file).
"""

from __future__ import annotations

from typing import Any, Final

from cofferdam.brokers.kit import archives
from cofferdam.brokers.kit.clamd import Scanned
from cofferdam.brokers.kit.source import Source
from cofferdam.brokers.patch import debs
from cofferdam.errors import CofferdamError

_yara: Any
try:
    import yara_x as _yara
except ImportError:
    _yara = None

SECONDS: Final = 300
"""For one file."""
LARGEST: Final = 512 << 20
"""Bytes of a file that is held in memory while it is scanned."""


class _Unseen(CofferdamError):
    """Something that the rules would not be shown."""


def scan(rules: bytes, file: Source, password: str = "") -> Scanned:
    """Has the rules look at a file, and at all that its archives have in them. Raises nothing for what the file or the
    rules are."""
    if _yara is None:
        return Scanned(
            "not scanned", "the policy has YARA rules, and yara-x is not installed (the extra `patch` has it)"
        )
    if file.stat().st_size > LARGEST:
        return Scanned("not scanned", f"the YARA rules look at files of {LARGEST >> 20} MiB at the most")
    names: list[str] = []
    try:
        compiled: Any = _yara.compile(rules.decode("utf-8"))
        scanner = _yara.Scanner(compiled)
        scanner.set_timeout(SECONDS)

        def see(data: bytes) -> None:
            if data.startswith(debs.MAGIC):
                raise _Unseen("the YARA rules are not shown what is in a Debian package")
            if len(data) > archives.SEEN_BYTES:
                raise _Unseen(f"the YARA rules look at entries of {archives.SEEN_BYTES >> 20} MiB at the most")
            names.extend(rule.identifier for rule in scanner.scan(data).matching_rules)

        see(file.read_bytes())
        archives.look(file, see, password)
    except (_yara.CompileError, UnicodeDecodeError) as error:
        return Scanned("not scanned", f"the site's YARA rules are none: {str(error)[:300]}")
    except _yara.TimeoutError:
        return Scanned("not scanned", f"the YARA rules took more than {SECONDS} s")
    except _yara.ScanError as error:
        return Scanned("not scanned", f"the YARA rules: {str(error)[:300]}")
    except CofferdamError as error:
        return Scanned("not scanned", str(error)[:300])
    base = f"YARA rules of the site, {sum(1 for _ in compiled)}"
    if names:
        return Scanned("found", f"the site's YARA rule {', '.join(dict.fromkeys(names[:8]))}", base)
    return Scanned("clean", "", base)
