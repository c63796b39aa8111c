"""What a form of ours asks for, as it stands in the address."""

import re
from typing import Any
from urllib.parse import urlencode

from litestar import Request, Response
from litestar.response import Redirect

from interfaces.console.frame import HEADERS

_MINUTES = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}")


def as_meant(request: Request[Any, Any, Any]) -> Response[Any] | None:
    """Leads to the address without what a form left blank, and with its times in UTC; None where it is that already."""
    given = list(request.query_params.multi_items())
    meant = [(name, f"{value}:00Z" if _MINUTES.fullmatch(value) else value) for name, value in given if value]
    if meant == given:
        return None
    return Redirect(f"{request.url.path}?{urlencode(meant)}", status_code=303, headers=dict(HEADERS))
