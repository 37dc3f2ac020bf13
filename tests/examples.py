"""How many examples a property is tried with: as many as CI can wait for, or as many as there are hours.

`ci` is the default and throws no dice: the same examples each time, so that a run that was green is green again, none
kept from one run to the next, and no search for a smaller example, which may take longer than the test. Time counts for
nothing: a busy machine makes no property false.

`fuzz` (`make properties`) draws anew each time, keeps what it found, and looks for the smallest example.
"""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

USUAL = 100
"""What hypothesis tries by itself; the number that `examples` is asked for is in this unit."""

settings.register_profile(
    "ci",
    max_examples=USUAL // 2,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=(HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much),
)
settings.register_profile(
    "fuzz", max_examples=1000 * USUAL, deadline=None, suppress_health_check=(HealthCheck.too_slow,), print_blob=True
)
settings.load_profile("ci")  # --hypothesis-profile on the command line comes later, and wins


def examples(count: int, **more: object) -> settings:
    """Instead of `settings(max_examples=count)`: what `count` is in the profile that is loaded."""
    return settings(max_examples=max(1, count * settings().max_examples // USUAL), **more)  # type: ignore[arg-type]
