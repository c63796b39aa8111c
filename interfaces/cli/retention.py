"""`jobledger retention`: take months out of the log into archives, and bring them back."""

import argparse
import sys
import time
from typing import Any

from msgspec import to_builtins
from msgspec.json import encode
from pydantic import SecretStr

from application.retention import ArchiveRow, Plan, Retention
from interfaces.bootstrap import configure_logs, embedded, retention
from interfaces.settings import Settings

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3


def run(settings: Settings, given: argparse.Namespace) -> int:
    """One action over the database of the owner, or that of a running `jobledger up`."""
    configure_logs(settings.log)
    if settings.migration_database_url is None and settings.database_url is None:
        address = embedded(settings.data, print).running()
        if address is None:
            print(f"jobledger: DATABASE_URL is not set, and no `jobledger up` runs in {settings.data}", file=sys.stderr)
            return UNREACHABLE
        settings = settings.model_copy(update={"database_url": SecretStr(address)})
    with retention(settings, _Progress(given.json).tell) as months:
        status, told, lines = _ACTIONS[given.action](months, given)
    print(encode(told).decode() if given.json else "\n".join(lines))
    return status


Told = tuple[int, Any, list[str]]


def _list(months: Retention, given: argparse.Namespace) -> Told:
    rows = months.archives()
    told = [{"month": name, **_shown(row)} for name, row in rows.items()]
    return DONE, told, [f"{name}  {_line(row)}" for name, row in rows.items()] or ["no month was ever archived"]


def _plan(months: Retention, given: argparse.Namespace) -> Told:
    plans = months.plans()
    return DONE, plans, [_planned(plan) for plan in plans] or ["there is no month that could be archived"]


def _archive(months: Retention, given: argparse.Namespace) -> Told:
    if given.dry_run:
        plan = months.plan(given.month)
        return (REFUSED if plan.reasons else DONE), plan, [_planned(plan)]
    row = months.archive(given.month)
    return DONE, {"month": f"{given.month:%Y-%m}", **_shown(row)}, [f"{given.month:%Y-%m}  {_line(row)}"]


def _restore(months: Retention, given: argparse.Namespace) -> Told:
    if given.dry_run:
        return _verify(months, given)
    row = months.restore(given.month)
    return DONE, {"month": f"{given.month:%Y-%m}", **_shown(row)}, [f"{given.month:%Y-%m}  {_line(row)}"]


def _verify(months: Retention, given: argparse.Namespace) -> Told:
    found = months.check(given.month)
    said = f"{found.month:%Y-%m}: {found.events} events of {found.jobs} jobs are as they were sealed"
    return DONE, {"month": f"{found.month:%Y-%m}", "jobs": found.jobs, "events": found.events}, [said]


_ACTIONS = {"list": _list, "plan": _plan, "archive": _archive, "restore": _restore, "verify": _verify}


def _shown(row: ArchiveRow) -> dict[str, Any]:
    shown: dict[str, Any] = to_builtins(row)
    return {**shown, "sha256": row.sha256.hex() if row.sha256 else None}


def _line(row: ArchiveRow) -> str:
    if row.name is None:
        return "is in the log, as before" if row.state == "returned" else row.state
    what = f"{row.events} events of {row.jobs} jobs in {row.name} ({row.bytes} bytes)" if row.sha256 else row.name
    return f"{row.state}  {what}"


def _planned(plan: Plan) -> str:
    has = f"{plan.month}  {plan.events} events of {plan.jobs} jobs, {plan.bytes} bytes"
    if plan.state != "in the log":
        return f"{has}: {plan.state}; go on with the command that was stopped"
    return f"{has}: {'stays, since ' + '; '.join(plan.reasons) if plan.reasons else 'can be archived'}"


class _Progress:
    """Tells each step on standard error, those that repeat once a few seconds."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._said = ("", 0.0)

    def tell(self, step: str) -> None:
        last, at = self._said
        if self._silent or (step == last and time.monotonic() - at < 5):
            return
        self._said = (step, time.monotonic())
        print(f"jobledger: {step}", file=sys.stderr, flush=True)
