"""The OpenAPI 3.1 description, made from the contract and the very types that requests are read as."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from inspect import cleandoc
from typing import Any

import msgspec
from litestar import Request, Response, get
from msgspec.json import encode, schema_components

from application.artifacts import LONGEST_NAME
from application.language import NOT_BLANK
from application.presentation import MOST_SLIDES
from interfaces.http.contract import OLDER_POLLERS, OPERATIONS
from interfaces.http.guard import ANYONE
from interfaces.http.links import links
from interfaces.http.operation import HEADERS, ID, REQUEST_HEADERS, Answer, Json, Operation
from interfaces.http.problems import KINDS, PROBLEM_JSON, Problem

REF = "#/components/schemas/{name}"
WITHOUT_NUL = r"^[^\u0000]*$"
"""What every string in a request must be."""
FILE_NAME = r"^[^/\\\u0000-\u001f\u007f-\u009f\u2028\u2029\ufffd]+$"
"""What `application.artifacts.checked_name` takes, but for `.` and `..`."""
NAMED = {
    "/v1/jobs/{job_id}/artifacts": (LONGEST_NAME, "page.html"),
    "/v1/jobs/{job_id}/attempts/{attempt}/artifacts": (LONGEST_NAME, "page.html"),
    "/v1/projections": (100, "stats"),
    "/v1/queues": (200, "gpu"),
}
"""How long the names in these paths may be, and an example."""
EXAMPLES: dict[int, Json] = {
    410: {
        "example": {
            "type": "/problems/gone",
            "title": KINDS["gone"].title,
            "status": 410,
            "detail": f"job {ID} is of 2026-03, which left the log at 2026-05-01T02:10:07+00:00 and is "
            "kept as '2026-03-5f0c1d2e3b4a5968.ndjson.gz'; an operator brings it back with "
            "`jobledger retention restore 2026-03`",
            "code": "gone",
            "request_id": "5f5c3a6b1f0e4c0f8f1d2c3b4a596877",
            "archive": {
                "month": "2026-03-01",
                "name": "2026-03-5f0c1d2e3b4a5968.ndjson.gz",
                "archived_at": "2026-05-01T02:10:07Z",
            },
        }
    }
}
"""Of problems, by status."""
EVERYWHERE = ("invalid", "forbidden", "unauthenticated", "rate-limited")
"""Problems that any call may be answered with."""


def describe(operations: Sequence[Operation] = OPERATIONS) -> Json:
    """The whole description, as JSON."""
    types = {Problem} | {
        t for o in operations for t in (o.body, o.query, *(b for a in o.answers for b in (a.body, a.or_body))) if t
    }
    ordered = sorted(types, key=lambda t: t.__name__)
    schemas, components = schema_components(ordered, ref_template=REF)
    refs = dict(zip(ordered, schemas, strict=True))
    _tidy(components)
    _refuse_nul((t.__name__ for o in operations for t in (o.body, o.query) if t), components)
    paths: dict[str, Json] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation, refs, components)
    for query in {o.query for o in operations if o.query}:  # described as parameters, one by one
        del components[query.__name__]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "jobledger",
            "version": version("jobledger"),
            "description": "Event-sourced job orchestration. Times are RFC 3339 in UTC, durations seconds, ids UUIDv7. "
            "A request names one Host, gives Content-Type, Idempotency-Key and Last-Event-ID once at most, and "
            "percent-encodes UTF-8, or it is `invalid`. Where there are keys, each call needs one whose role may "
            "make it; without any, the service serves its own machine only. "
            "Lines of If-Match or If-None-Match are one list.",
        },
        "paths": paths,
        "components": {"schemas": components, "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}}},
        "security": [{}, {"key": []}],
    }


@get("/schema/openapi.json", roles=ANYONE)
async def get_description(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Of what this server answers: the older calls may be switched off."""
    older_pollers = request.app.state.older_pollers
    description = describe([operation for operation in OPERATIONS if older_pollers or operation.tag != OLDER_POLLERS])
    return Response(encode(description), media_type="application/vnd.oai.openapi+json;version=3.1")


def _operation(operation: Operation, refs: dict[type, Json], components: Json) -> Json:
    described: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation, components),
        "responses": {
            **_problems(operation),
            **{str(a.status): _answer(a, refs, links(operation.id, a.status)) for a in operation.answers},
        },
    }
    if operation.description:
        described["description"] = operation.description
    if operation.file:
        bytes_of_a_file = {"schema": {"type": "string", "format": "binary"}}
        described["requestBody"] = {"required": True, "content": {"application/octet-stream": bytes_of_a_file}}
    if operation.body is not None:
        content: Json = {"application/json": {"schema": refs[operation.body], "example": operation.example}}
        if operation.upload:
            file = {
                "type": "string",
                "contentMediaType": "text/plain",
                "pattern": NOT_BLANK,
                "description": "Text in UTF-8; if it has a file's name, one that ends in .txt or .md",
            }
            form = {"type": "object", "properties": {"file": file}, "required": ["file"], "additionalProperties": False}
            content["multipart/form-data"] = {"schema": form}
        described["requestBody"] = {"required": True, "content": content}
    return described


def _parameters(operation: Operation, components: Json) -> list[Json]:
    parameters: list[Json] = []
    if "{job_id}" in operation.path:
        schema: Json = {"type": "string", "format": "uuid"}
        parameters.append({"name": "job_id", "in": "path", "required": True, "schema": schema, "example": ID})
    if "{key_id}" in operation.path:
        schema = {"type": "string", "format": "uuid"}
        parameters.append({"name": "key_id", "in": "path", "required": True, "schema": schema, "example": ID})
    if "{attempt}" in operation.path:
        schema = {"type": "integer", "minimum": 1, "maximum": 2**31 - 1}
        parameters.append({"name": "attempt", "in": "path", "required": True, "schema": schema, "example": 1})
    if "{n}" in operation.path:
        schema = {"type": "integer", "minimum": 1, "maximum": MOST_SLIDES}
        parameters.append({"name": "n", "in": "path", "required": True, "schema": schema, "example": 1})
    if "{name}" in operation.path:
        longest, example = NAMED[operation.path.split("/{name}")[0]]
        schema = {"type": "string", "minLength": 1, "maxLength": longest, "pattern": FILE_NAME}
        parameters.append({"name": "name", "in": "path", "required": True, "schema": schema, "example": example})
    if "{tile}" in operation.path:
        schema = {"type": "string", "enum": [*"01234567", "entries"]}
        parameters.append({"name": "level", "in": "path", "required": True, "schema": schema, "example": "0"})
        schema = {"type": "string", "pattern": r"^[0-9]{3}$"}
        parameters.append({"name": "tile", "in": "path", "required": True, "schema": schema, "example": "000"})
    if operation.query is not None:
        properties = components[operation.query.__name__]["properties"]
        for field in msgspec.structs.fields(operation.query):
            name = field.encode_name
            schema = _given(properties[name])
            parameters.append({"name": name, "in": "query", "required": field.required, "schema": schema})
    parameters.extend({"name": name, "in": "header", **REQUEST_HEADERS[name]} for name in operation.request_headers)
    return parameters


def _given(schema: Json) -> Json:
    """The schema of a query parameter that is given: one that is absent has no value, so none is ever null."""
    present = {name: value for name, value in schema.items() if value not in (None, [])}
    for alternative in present.pop("anyOf", []):
        if alternative != {"type": "null"}:
            present |= alternative
    return present


def _tidy(components: Json) -> None:
    for component in components.values():
        if "description" in component:
            component["description"] = cleandoc(component["description"])


def _refuse_nul(names: Iterable[str], components: Json) -> None:
    """Say of every string of these types, and of those within them, that it has no NUL."""
    left, seen = list(names), set()
    while left:
        if (name := left.pop()) not in seen:
            seen.add(name)
            left.extend(_without_nul(components[name]))


def _without_nul(schema: Any) -> list[str]:
    """The same for one schema; returns the names of those it refers to."""
    if isinstance(schema, list):
        return [name for item in schema for name in _without_nul(item)]
    if not isinstance(schema, dict):
        return []
    if schema.get("type") == "string" and not schema.keys() & {"format", "pattern"}:
        schema["pattern"] = WITHOUT_NUL
    if isinstance(keys := schema.get("propertyNames"), dict):
        keys["pattern"] = WITHOUT_NUL
    if isinstance(ref := schema.get("$ref"), str):
        return [ref.rpartition("/")[2]]
    return [name for item in schema.values() for name in _without_nul(item)]


def _answer(answer: Answer, refs: dict[type, Json], links: Json) -> Json:
    described: Json = {"description": answer.description}
    if links:
        described["links"] = links
    if answer.headers:
        described["headers"] = {name: HEADERS[name] for name in answer.headers}
    if answer.body is not None:
        text = {media_type: {"schema": {"type": "string"}} for media_type in answer.also}
        schema = {"anyOf": [refs[answer.body], refs[answer.or_body]]} if answer.or_body else refs[answer.body]
        described["content"] = {answer.media_type: {"schema": schema}, **text}
    elif answer.status in (200, 206):
        described["content"] = {answer.media_type: {"schema": {"type": "string", "format": "binary"}}}
    return described


def _problems(operation: Operation) -> Json:
    by_status: dict[int, list[str]] = {}
    gone = ("gone",) if "{job_id}" in operation.path and operation.tag != OLDER_POLLERS else ()
    for code in (*EVERYWHERE, *operation.problems, *gone):
        by_status.setdefault(KINDS[code].status, []).append(code)
    return {
        str(status): {
            "description": " or ".join(f"{KINDS[code].title} (`{code}`)" for code in codes),
            "content": {PROBLEM_JSON: {"schema": {"$ref": REF.format(name="Problem")}, **EXAMPLES.get(status, {})}},
            **({"headers": {"Retry-After": HEADERS["Retry-After"]}} if status == 503 else {}),
        }
        for status, codes in by_status.items()
    }
