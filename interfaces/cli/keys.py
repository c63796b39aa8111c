"""`jobledger keys create|list|revoke`, and the first key of a service that others can reach."""

import argparse
from collections.abc import Sequence
from uuid import UUID

import httpx2
from msgspec import ValidationError, convert, to_builtins
from msgspec.json import encode
from pydantic import SecretStr
from rich.table import Table

from application.errors import Invalid, NotFound
from application.keys import CreatedKey, Key, KeyConflict, NewKey, make_key
from interfaces.bootstrap import configure_logs, embedded, key_store
from interfaces.cli.client import ask, connect
from interfaces.cli.tables import console
from interfaces.http.guard import is_loopback
from interfaces.http.keys import KeyPage
from interfaces.http.problems import field_error
from interfaces.settings import Settings

DONE = 0
BY = "system:keys"
"""The actor of keys that are made on the service's own machine."""


def admit(settings: Settings) -> str | None:
    """Why the service may not listen where it is told to; on loopback it may.

    Elsewhere it needs an admin key. At the very first start it makes one, and prints it this once.
    """
    if is_loopback(settings.host):
        return None
    with key_store(settings) as store:
        keys = [key for _, key in store.all()]
        if not keys:
            try:
                created = make_key(store, NewKey(name="admin", role="admin"), BY)
            except KeyConflict:  # another server, which starts at the same moment, was first
                return None
            print(f"jobledger admin key (shown this once; make others with it): {created.secret}", flush=True)
            return None
    if any(key.role == "admin" and key.revoked_at is None for key in keys):
        return None
    make_one = "`jobledger keys create --role admin --name NAME`"
    return f"{settings.host} is not loopback, and there is no admin key; make one with {make_one}"


def are_there(settings: Settings) -> bool:
    """Whether callers need a key."""
    with key_store(settings) as store:
        return bool(store.all())


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Over HTTP where JOBLEDGER_URL is set; else in the database: whoever has that needs no key to it."""
    configure_logs(settings.log)
    if "url" in settings.model_fields_set:
        return _over_http(settings, given)
    if settings.database_url is None:
        address = embedded(settings.data, print).running()
        if address is None:
            return _over_http(settings, given)
        settings = settings.model_copy(update={"database_url": SecretStr(address)})
    return _in_database(settings, given)


def _in_database(settings: Settings, given: argparse.Namespace) -> int:
    with key_store(settings) as store:
        match given.action:
            case "create":
                _show_created(make_key(store, _wanted(given), BY), as_json=given.json)
            case "list":
                _show([key for _, key in store.all()], as_json=given.json)
            case "revoke":
                id = _id_of([key for _, key in store.all()], given.key)
                if (revoked := store.revoke(id, BY)) is not None:
                    _show_revoked(revoked, as_json=given.json)
    return DONE


def _over_http(settings: Settings, given: argparse.Namespace) -> int:
    """Raises Unavailable, and what the service refused with."""
    with connect(settings) as client:
        match given.action:
            case "create":
                made = ask(client, "POST", "/v1/keys", json=to_builtins(_wanted(given)))
                _show_created(convert(made, type=CreatedKey), as_json=given.json)
            case "list":
                _show(_listed(client), as_json=given.json)
            case "revoke":
                revoked = ask(client, "DELETE", f"/v1/keys/{_id_of(_listed(client), given.key)}")
                _show_revoked(convert(revoked, type=Key), as_json=given.json)
    return DONE


def _listed(client: httpx2.Client) -> list[Key]:
    return convert(ask(client, "GET", "/v1/keys"), type=KeyPage).items


def _wanted(given: argparse.Namespace) -> NewKey:
    """Raises Invalid."""
    asked = {name: getattr(given, name) for name in ("name", "role", "namespace", "rate", "in_flight")}
    try:
        return convert(asked, type=NewKey)
    except ValidationError as error:
        raise Invalid(field_error(error)) from error


def _id_of(known: Sequence[Key], named: str) -> UUID:
    """The id of the key with a name, or of one that is named by its id. Raises NotFound."""
    for key in known:
        if named in (key.name, str(key.id)):
            return key.id
    raise NotFound(f"there is no key {named!r}")


def _show_created(created: CreatedKey, *, as_json: bool) -> None:
    if as_json:
        print(encode(created).decode())
        return
    where = f", namespace {created.key.namespace}" if created.key.namespace else ""
    print(f"key       {created.key.name}  ({created.key.role}{where})")
    if limits := _limits(created.key):
        print(f"limits    {limits}")
    print(f"secret    {created.secret}")
    print("          shown this once: only its hash is kept. Send it as Authorization: Bearer <secret>")


def _show_revoked(key: Key, *, as_json: bool) -> None:
    print(encode(key).decode() if as_json else f"revoked   {key.name}, for good, on every server within two seconds")


def _show(keys: Sequence[Key], *, as_json: bool) -> None:
    if as_json:
        print(encode(keys).decode())
        return
    table = Table("name", "role", "namespace", "limits", "made", "by", "last used", "revoked", box=None)
    for key in keys:
        moments = [f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (key.created_at, key.last_used_at, key.revoked_at)]
        table.add_row(
            key.name, key.role, key.namespace or "all", _limits(key), moments[0], key.created_by, *moments[1:]
        )
    console().print(table)


def _limits(key: Key) -> str:
    """What the key may ask for at the most, in words."""
    rate = f"{key.rate:g}/s on each server" if key.rate is not None else ""
    in_flight = f"{key.in_flight:,} jobs in flight" if key.in_flight is not None else ""
    return ", ".join(limit for limit in (rate, in_flight) if limit)
