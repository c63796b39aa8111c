"""Pages and files of the console in gzip, for browsers that take it.

Answers of the API stay as they are: streams must not be held back, and artifacts may be compressed already. Nor is a
page compressed that has a secret in it, since its length would tell of it (BREACH, breachattack.com).
"""

import gzip
import re
from typing import Any

from litestar import Request

LEVEL = 5
_CODING = re.compile(r"\s*([\w.*-]+)\s*(?:;\s*[qQ]\s*=\s*([01](?:\.\d{0,3})?)\s*)?")


def takes_gzip(request: Request[Any, Any, Any]) -> bool:
    """Whether Accept-Encoding names gzip, or anything, and does not refuse it (RFC 9110, 12.5.3)."""
    weights = {}
    for told in ",".join(request.headers.getall("accept-encoding", [])).split(","):
        if found := _CODING.fullmatch(told):
            weights[found[1].lower()] = float(found[2] or 1)
    return weights.get("gzip", weights.get("*", 0.0)) > 0


def zipped(content: bytes) -> bytes:
    """Without a time in it: the same content is the same bytes on every server."""
    return gzip.compress(content, LEVEL, mtime=0)
