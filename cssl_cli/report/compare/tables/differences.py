"""Differences of two rows in words: how large, and whether beyond seed noise."""

from __future__ import annotations

from cssl_cli.report.compare.named_quantities import shown_difference
from cssl_cli.report.compare.paired_difference import PairedDifference
from cssl_cli.report.layout import plural


def apart(name: str, found: PairedDifference | None) -> str:
    """ "1.2 ±0.4 apart, beyond seed noise (95 % [0.2, 2.2], 3 seeds)"."""
    if found is None:
        return "no seed in common"
    text = (
        shown_difference(name, abs(found.mean))
        + ("" if found.sd is None else f" ±{shown_difference(name, found.sd)}")
        + " apart"
    )
    if found.beyond_noise is None:
        return f"{text}, seed noise unknown ({'one seed' if found.n == 1 else f'the same in {found.n} seeds'})"
    low_high = ""
    if found.interval is not None:
        low, high = found.interval if found.mean >= 0 else (-found.interval[1], -found.interval[0])
        low_high = f"95 % [{_end(name, low)}, {_end(name, high)}], "
    return f"{text}, {noise(found)} ({low_high}{plural(found.n, 'seed')})"


def _end(name: str, value: float) -> str:
    """An end of an interval; one near 0 is not rounded to 0, since the words beside it depend on its sign."""
    text = shown_difference(name, value)
    return text if float(text) or not value else ("just above 0" if value > 0 else "just below 0")


def noise(found: PairedDifference | None) -> str:
    """Whether a difference is beyond seed noise, in words."""
    beyond = None if found is None else found.beyond_noise
    return "seed noise unknown" if beyond is None else "beyond seed noise" if beyond else "within seed noise"
