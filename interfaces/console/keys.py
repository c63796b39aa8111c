"""What admins look at: the keys, by whom and when they were made, when they were used, and revoking one."""

from typing import Any

from litestar import Request, Response, get

from application.keys import Keys
from interfaces.console.frame import page
from interfaces.http.guard import ADMIN, caller_of
from interfaces.http.jobs import NoQuery
from interfaces.http.requests import query


@get("/keys", roles=ADMIN)
async def show_keys(request: Request[Any, Any, Any]) -> Response[Any]:
    """Those that are good first, each group in the order in which they were made."""
    query(request, NoQuery)
    keys: Keys = request.app.state.service.keys
    caller = caller_of(request.scope)
    found = sorted(await keys.all(), key=lambda key: key.revoked_at is not None)
    return page(request, "keys.html", keys=found, own=caller.key_id if caller else None)
