"""What browsers are told of every answer, so that none is run, framed or sent on as something it is not.

Pages of the console, and files that jobs made, say for themselves what they may do: theirs stand. TLS is the proxy's,
and so is Strict-Transport-Security.
"""

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send

POLICY = b"content-security-policy"
HEADERS: tuple[tuple[bytes, bytes], ...] = (
    (POLICY, b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
"""With them goes `X-Content-Type-Options: nosniff`, which the server adds to all answers."""


def safe(app: ASGIApp) -> ASGIApp:
    """Give each answer that has no policy of its own the strictest."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"]]
                if not any(name.lower() == POLICY for name, _ in headers):
                    message = {**message, "headers": [*headers, *HEADERS]}
            await send(message)

        await app(scope, receive, send_safely)

    return answer
