"""Foreign text and numbers for a report page: bounded, and without unseen characters.

A run's text comes from data, models and configs of other people. The templates escape it for HTML;
this module removes characters that change how other text is displayed, and bounds the length.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from convo_cli.unseen import escape_unseen
from convo_cli.wording import shared_device

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\ufffe\uffff]")  # HTML allows none of them
_MANY_MARKS = re.compile(
    r"([\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{4})"
    r"[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+"
)
"""More combining marks than any script uses; they would cover the lines above."""


def shown(text: str, limit: int = 200) -> str:
    """Return about ``limit`` characters of a text at most, with unseen characters as escapes."""
    rest = len(text) - limit
    visible = escape_unseen(_CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text[:limit]))
    visible = _MANY_MARKS.sub(r"\1", visible).encode("utf-8", "replace").decode("utf-8")
    more = f"… ({rest:,} more characters)" if rest > 0 else ""
    return (visible if len(visible) <= 2 * limit else f"{visible[: 2 * limit]}…") + more


def device_of(start: Mapping[str, Any]) -> str:
    """Return the device that a start of a run logged, with the number of its processes."""
    processes = start.get("num_processes")
    device = shown(str(start.get("device")), 40)
    return shared_device(device, processes if isinstance(processes, int) else 1)


def number(value: float | None, digits: int = 4) -> str:
    """Return a float with this many significant digits, and an en dash for None or NaN."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    if isinstance(value, int) or value == 0:
        return f"{value:,.0f}"
    if 1e-3 <= abs(value) < 1e6:
        places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        return f"{value:,.{places}f}"
    mantissa, exponent = f"{value:.{max(0, digits - 2)}e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def short_number(value: float) -> str:
    """Return a number for an axis: 1.5k, 2M, 3e-4."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if size <= abs(value) < 1e3 * size:
            return f"{value / size:.3g}{unit}"
    if value == 0 or 1e-2 <= abs(value) < 1e3:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def duration(seconds: float) -> str:
    """Return seconds in words of two units: 45 s, 12 min 3 s, 2 h 5 min, 3 d 4 h."""
    whole = int(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    parts = []
    for name, size in units:
        count, whole = divmod(whole, size)
        parts.append((count, name))
    first = next(index for index, (count, _) in enumerate(parts) if count)
    return " ".join(f"{count} {name}" for count, name in parts[first : first + 2] if count)


def size(num_bytes: int) -> str:
    """Return a size in MiB or GiB."""
    mebibytes = num_bytes / 2**20
    return f"{mebibytes / 1024:,.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:,.1f} MiB"


def moment(text: object) -> str:
    """Return a time of a log as 2026-11-29 15:04 UTC; empty if it is not one."""
    try:
        time = datetime.fromisoformat(str(text)[:40]).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        return ""
    return f"{time:%Y-%m-%d %H:%M} UTC"
