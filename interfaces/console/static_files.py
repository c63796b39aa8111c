"""The console's stylesheet, modules and icon."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from litestar import Request, Response, get
from msgspec import Struct

from application.errors import NotFound
from interfaces.console.compression import takes_gzip, zipped
from interfaces.http.guard import ANYONE

FILES = Path(__file__).with_name("static")
TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class File(Struct, frozen=True):
    """A file as it is sent: its content and ETag, by the coding it is in."""

    media_type: str
    codings: dict[str, tuple[bytes, str]]


@get("/static/{name:str}", roles=ANYONE)
async def get_static(request: Request[Any, Any, Any]) -> Response[bytes]:
    file = _files().get(request.path_params["name"])
    if file is None:
        raise NotFound("there is no such file")
    coding = "gzip" if takes_gzip(request) else "identity"
    content, etag = file.codings[coding]
    headers = {
        "ETag": etag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": "default-src 'none'",
        "Vary": "Accept-Encoding",
    }
    if etag in re.findall(r'"[^"]*"', request.headers.get("if-none-match", "")):
        return Response(b"", status_code=304, headers=headers, media_type=file.media_type)
    if coding == "gzip":
        headers["Content-Encoding"] = coding
    return Response(content, headers=headers, media_type=file.media_type)


@cache
def _files() -> dict[str, File]:
    return {path.name: _read(path) for path in FILES.iterdir()}


def _read(path: Path) -> File:
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()[:32]
    codings = {"identity": (content, f'"{digest}"'), "gzip": (zipped(content), f'"{digest}-gzip"')}
    return File(TYPES[path.suffix], codings)
