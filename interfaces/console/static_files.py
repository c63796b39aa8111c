"""The console's stylesheet, modules and icon."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Request, Response, get

from application.errors import NotFound
from interfaces.http.guard import ANYONE

FILES = Path(__file__).with_name("static")
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


@get("/static/{name:str}", roles=ANYONE)
async def get_static(request: Request[Any, Any, Any]) -> Response[bytes]:
    file = _files().get(request.path_params["name"])
    if file is None:
        raise NotFound("there is no such file")
    content, etag, media_type = file
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "default-src 'none'",
    }
    if request.headers.get("if-none-match") == etag:
        return Response(b"", status_code=304, headers=headers, media_type=media_type)
    return Response(content, headers=headers, media_type=media_type)


@cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    found = {}
    for path in FILES.iterdir():
        content = path.read_bytes()
        found[path.name] = (content, f'"{hashlib.sha256(content).hexdigest()[:32]}"', TYPES[path.suffix])
    return found
