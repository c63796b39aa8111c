"""A bare litestar handler that returns a constant, on the server settings of `jobledger api`: the limit for HTTP."""

import socket

import uvicorn
import uvloop
from litestar import Litestar, Request, Response, get, post
from msgspec.json import decode, encode

ANSWER = encode({"id": "01a20032-d14b-79ae-8f97-c9b5fd507266", "more": "x" * 900})


@get("/constant")
async def constant() -> Response[bytes]:
    return Response(ANSWER, media_type="application/json")


@post("/parsed", status_code=202)
async def parsed(request: Request) -> Response[bytes]:  # type: ignore[type-arg]
    decode(await request.body())
    return Response(ANSWER, media_type="application/json", status_code=202)


def main() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    print(f"listening on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
    app = Litestar([constant, parsed], openapi_config=None, logging_config=None)
    config = uvicorn.Config(app, http="httptools", log_config=None, access_log=False, server_header=False)
    uvloop.run(uvicorn.Server(config).serve(sockets=[listening]))


if __name__ == "__main__":
    main()
