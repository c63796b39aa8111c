"""`jobledger audit`: verify the live log, and exchange the key that seals it, or replace a lost one."""

import argparse
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
from pydantic import SecretStr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from application.log_verification import Checked, Verification
from domain.notes import Checkpoint, Malformed, read, read_verifier_key
from interfaces.bootstrap import LogVerifier, configure_logs, embedded, replace_lost_key, sealing_keys
from interfaces.settings import Settings

DONE, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
SAVE_SECONDS = 2.0
LONGEST_REASON = 2000


def verify(settings: Settings, given: argparse.Namespace) -> int:
    """Verify the log from where an earlier run was stopped, else from its beginning; 1 when anything differs."""
    workers = given.workers or os.cpu_count() or 1
    try:
        known = [Path(path).read_text("utf-8") for path in given.checkpoint]
        for note in known:
            Checkpoint.parse(read(note)[0])
    except OSError as error:
        print(f"jobledger: {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    except (UnicodeDecodeError, Malformed) as error:
        print(f"jobledger: --checkpoint: {error}", file=sys.stderr)
        return USAGE
    if (wrong := _wrong_key(given.key)) is not None:
        return wrong
    configure_logs(settings.log)
    if (there := _with_database(settings)) is None:
        return UNREACHABLE
    verifier = LogVerifier(there, given.key, known)
    state = Path(given.state) if given.state else settings.data / "audit-verify.json"
    verification = _gone_on_with(state, verifier.plan())
    begun, units = time.monotonic(), len(verification.done)
    events = verification.total.events
    bar = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*bar, TimeRemainingColumn(), console=Console(stderr=True), disable=given.json) as progress:
            shown = progress.add_task("verifying", total=len(verification.units), completed=units)
            saved = begun
            for unit in verifier.run(verification, workers):
                progress.update(shown, advance=1, description=f"verifying {unit.of}")
                if time.monotonic() - saved > SAVE_SECONDS:
                    _save(state, verification)
                    saved = time.monotonic()
    except BaseException:
        _save(state, verification)
        print(f"jobledger: stopped; the same command goes on from {state}", file=sys.stderr)
        raise
    state.unlink(missing_ok=True)
    total = verification.total
    _report(total, time.monotonic() - begun, total.events - events, as_json=given.json)
    return REFUSED if total.differences else DONE


def keys(settings: Settings, given: argparse.Namespace) -> int:
    """Show the public keys and when each signed, after making a new one if asked to."""
    configure_logs(settings.log)
    if (there := _with_database(settings)) is None:
        return UNREACHABLE
    until = datetime.now(UTC) + timedelta(days=given.overlap) if given.rotate else None
    signed, unsigned = sealing_keys(there, until)
    if given.json:
        yet = [{"key": key, "first_signed_at": None, "last_signed_at": None} for key in unsigned]
        print(msgspec.json.encode([*signed, *yet]).decode())
        return DONE
    for one in signed:
        print(f"{one.key}  {one.first_signed_at:%Y-%m-%d %H:%M:%S}  {one.last_signed_at:%Y-%m-%d %H:%M:%S}")
    for key in unsigned:
        print(f"{key}  has signed nothing yet")
    return DONE


def rekey(settings: Settings, given: argparse.Namespace) -> int:
    """Go on under a new key, and say what is to be done with it."""
    reason = given.reason.strip()
    if not 1 <= len(reason) <= LONGEST_REASON or not reason.isprintable():
        print(
            f"jobledger: --reason: a line of 1 to {LONGEST_REASON} characters that says what happened", file=sys.stderr
        )
        return USAGE
    if (wrong := _wrong_key(given.key)) is not None:
        return wrong
    configure_logs(settings.log)
    if (there := _with_database(settings)) is None:
        return UNREACHABLE
    done = replace_lost_key(there, given.key, reason)
    if given.json:
        print(msgspec.json.encode(done).decode())
        return DONE
    print(f"from {done.size} events on, checkpoints are signed by the new key\n  {done.key}")
    print("those before are checked with\n" + "\n".join(f"  {key}" for key in done.lost))
    print(f"hand both to your auditors, with the size and the reason; keep a copy of {settings.data / 'seal' / 'keys'}")
    return DONE


def _wrong_key(given: list[str]) -> int | None:
    """The exit status for a public key that is none, which is said."""
    try:
        for key in given:
            read_verifier_key(key)
    except Malformed as error:
        print(f"jobledger: --key: {error}", file=sys.stderr)
        return USAGE
    return None


def _with_database(settings: Settings) -> Settings | None:
    """The settings, with the database of a running `jobledger up` unless DATABASE_URL is set."""
    if settings.database_url is not None:
        return settings
    address = embedded(settings.data, print).running()
    if address is None:
        print(f"jobledger: DATABASE_URL is not set, and no `jobledger up` runs in {settings.data}", file=sys.stderr)
        return None
    return settings.model_copy(update={"database_url": SecretStr(address)})


def _gone_on_with(state: Path, fresh: Verification) -> Verification:
    """The verification that was stopped, if it was of this log."""
    try:
        stopped = msgspec.json.decode(state.read_bytes(), type=Verification)
    except (FileNotFoundError, msgspec.MsgspecError):
        return fresh
    return stopped if stopped.log == fresh.log else fresh


def _save(state: Path, verification: Verification) -> None:
    state.parent.mkdir(parents=True, exist_ok=True)
    part = state.with_name(f"{state.name}.part")
    part.write_bytes(msgspec.json.encode(verification))
    part.replace(state)


def _report(total: Checked, seconds: float, events: int, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(total).decode())
        return
    print(
        f"{total.events} events of {total.jobs} jobs, {total.leaves} sealed, {total.checkpoints} checkpoints: "
        f"{events / max(seconds, 0.001):,.0f} events/s"
    )
    if total.archived:
        print(f"{total.archived} more events are in archives, which `jobledger retention verify` checks")
    if total.first is None:
        print("nothing differs")
        return
    print(f"{total.differences} differences, the first of them:\n  {total.first}")
