"""Keys over HTTP: made, listed and revoked by admins."""

from typing import Any
from uuid import UUID

import msgspec
from litestar import Request, Response, delete, get, post
from msgspec import Struct
from msgspec.json import encode

from application.errors import FieldError, Forbidden, Invalid
from application.keys import ANYBODY, Key, Keys, NewKey
from interfaces.http.answers import JSON
from interfaces.http.guard import ADMIN, caller_of
from interfaces.http.jobs import NoQuery
from interfaces.http.requests import BODY, actor, json_body, query


class KeyPage(Struct, frozen=True):
    """All keys, oldest first, those that were revoked too."""

    items: list[Key]
    next: None = None


@post("/v1/keys", request_max_body_size=BODY, roles=ADMIN)
async def create_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    new = await json_body(request, NewKey)
    if caller_of(request.scope) is ANYBODY:
        raise Forbidden(
            "the first key is made on the service's own machine: `jobledger keys create --role admin --name NAME`"
        )
    created = await _keys(request).create(new, actor(request))
    headers = {"Location": f"/v1/keys/{created.key.id}", "Cache-Control": "no-store"}
    return Response(encode(created), status_code=201, media_type=JSON, headers=headers)


@get("/v1/keys", roles=ADMIN)
async def list_keys(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    return Response(encode(KeyPage(await _keys(request).all())), media_type=JSON)


@delete("/v1/keys/{key_id:str}", status_code=200, roles=ADMIN)
async def revoke_key(request: Request[Any, Any, Any]) -> Response[bytes]:
    query(request, NoQuery)
    revoked = await _keys(request).revoke(_key_id(request), actor(request))
    return Response(encode(revoked), media_type=JSON)


def _key_id(request: Request[Any, Any, Any]) -> UUID:
    given = request.path_params["key_id"]
    try:
        return msgspec.convert(given, type=UUID)
    except msgspec.ValidationError as error:
        raise Invalid(FieldError("key_id", f"{given[:100]!r} is no UUID")) from error


def _keys(request: Request[Any, Any, Any]) -> Keys:
    keys: Keys = request.app.state.service.keys
    return keys
