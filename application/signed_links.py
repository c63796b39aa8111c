"""Links to files that browsers can follow without a key, for a while."""

import asyncio
import hmac
from base64 import urlsafe_b64encode
from collections.abc import Callable

from application.errors import Forbidden

WINDOW = 24 * 3600
"""Seconds. A link is good for one to two of these: all servers hand out the same link until the next one begins."""


class SignedLinks:
    """Signs and checks links, each to one file: `?expires=<unix seconds>&signature=<base64url HMAC-SHA256>`.

    The signature covers the method, the path and the expiry, with a secret that all servers share.
    """

    def __init__(self, secret: Callable[[], bytes], clock: Callable[[], float]) -> None:
        """`secret` blocks; it is asked once, when the first link is needed. `clock` tells unix time."""
        self._read_secret = secret
        self._clock = clock
        self._secret: bytes | None = None

    async def sign(self, path: str) -> str:
        """The link to a path, to GET it. Raises Unavailable."""
        expires = (int(self._clock()) // WINDOW + 2) * WINDOW
        return f"{path}?expires={expires}&signature={await self._signature(path, expires)}"

    async def check(self, path: str, expires: int, signature: str) -> None:
        """Raises Forbidden for a link that is not ours, is another file's, or has expired."""
        wanted = await self._signature(path, expires)
        if not hmac.compare_digest(wanted.encode(), signature.encode()):
            raise Forbidden(
                "the signature of this link is not right for this file; ask for the job again for a new one"
            )
        if expires <= self._clock():
            raise Forbidden("this link has expired; ask for the job again for a new one")

    async def _signature(self, path: str, expires: int) -> str:
        if self._secret is None:
            self._secret = await asyncio.to_thread(self._read_secret)
        signed = hmac.digest(self._secret, f"GET\n{path}\n{expires}".encode(), "sha256")
        return urlsafe_b64encode(signed).rstrip(b"=").decode()
