"""How long a server asks to be left alone."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx2

LONGEST_DELAY = 3600.0


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds from `Retry-After`, which holds seconds or a date (RFC 9110, 10.2.3); None where it names none."""
    named = response.headers.get("retry-after", "")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", named):
        return min(float(named), LONGEST_DELAY)
    try:
        until = parsedate_to_datetime(named) - datetime.now(UTC)
    except (TypeError, ValueError):
        return None
    return min(max(until.total_seconds(), 0.0), LONGEST_DELAY)
