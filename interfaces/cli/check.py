"""`jobledger check`: what is configured here, and whether it works, without spending anything."""

import argparse
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct
from msgspec.json import encode
from pydantic import SecretStr

from application.errors import ApplicationError
from application.language import LanguageModelBusy, LanguageModelRefused
from interfaces.bootstrap import (
    EmbeddedFailed,
    configure_logs,
    database_state,
    embedded,
    known_models,
    opened_in_chromium,
    own_handlers,
    probe,
    programs_version,
    traces_endpoint,
    video_tools,
)
from interfaces.cli.causes import with_cause
from interfaces.settings import Settings, files, origin

DONE, WRONG = 0, 1
NO_HANDLERS = "JOBLEDGER_HANDLERS is not set: a worker here runs the kinds that come along"


class Checked(Struct, frozen=True):
    """One thing that was looked at; `ok` is false for what somebody has to mend."""

    name: str
    ok: bool
    says: str


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Look at everything in turn; exit status 1 when something is wrong."""
    configure_logs(settings.log)
    found = [Checked(name, *look(settings, given.live)) for name, look in LOOKS]
    if given.json:
        print(encode({"ok": all(checked.ok for checked in found), "checks": found}).decode())
    else:
        width = max(len(checked.name) for checked in found)
        for checked in found:
            print(f"{'ok   ' if checked.ok else 'WRONG'}  {checked.name:<{width}}  {checked.says}")
    return DONE if all(checked.ok for checked in found) else WRONG


Look = Callable[[Settings, bool], tuple[bool, str]]


def _settings(settings: Settings, live: bool) -> tuple[bool, str]:
    read = [str(file) for file in files(settings.data) if file.is_file()]
    return True, f"from the environment and {' and '.join(read)}" if read else "from the environment; there is no .env"


def _data(settings: Settings, live: bool) -> tuple[bool, str]:
    return _writable(settings.data)


def _database(settings: Settings, live: bool) -> tuple[bool, str]:
    if settings.database_url is not None:
        where = f"DATABASE_URL, {origin('DATABASE_URL', settings.data)}"
    elif address := _running(settings.data):
        where = f"embedded, by the `jobledger up` that runs in {settings.data}"
        settings = settings.model_copy(update={"database_url": SecretStr(address)})
    else:
        try:
            return True, f"embedded: `jobledger up` starts {programs_version()} in {settings.data}"
        except EmbeddedFailed as failed:
            return False, str(failed)
    try:
        return True, f"{where}: {database_state(settings)}"
    except ApplicationError as error:
        return False, f"{where}: {with_cause(error)}"


def _artifacts(settings: Settings, live: bool) -> tuple[bool, str]:
    if "://" not in settings.artifacts_place:
        return _writable(Path(settings.artifacts_place))
    try:
        probe(settings.artifacts_place)
    except ApplicationError as error:
        return False, f"{settings.artifacts_place}: {error}"
    return True, f"{settings.artifacts_place} can be written to"


def _chromium(settings: Settings, live: bool) -> tuple[bool, str]:
    path, version = opened_in_chromium()
    if path is None:
        return True, "not on the PATH: pages are checked without being opened; install chromium to have them opened"
    if version is None:
        return False, f"{path} does not open pages; the log says why"
    return True, f"{version}, {path}"


def _video(settings: Settings, live: bool) -> tuple[bool, str]:
    fonts, shapes, encodes = video_tools()
    if not encodes:
        return False, "the installed av has no H.264 encoder (libx264): no presentation can be rendered here"
    joined = "" if shapes else "; no libfribidi0 on this machine: scripts whose letters join are not drawn"
    return True, f"H.264 encoder and {len(fonts)} fonts{joined}"


def _openai(settings: Settings, live: bool) -> tuple[bool, str]:
    if settings.openai_api_key is None:
        return True, "OPENAI_API_KEY is not set: visualizations are made by the offline composer"
    model = settings.openai_model
    known = f"OPENAI_API_KEY is set ({origin('OPENAI_API_KEY', settings.data)}); model {model}"
    if settings.openai_base_url:
        known += f" at {settings.openai_base_url}"
    try:
        models = known_models(settings) if live else None
    except (LanguageModelRefused, LanguageModelBusy, ValueError) as error:
        return False, f"{known}: {error}"
    if models is None:
        return True, f"{known}; --live asks whether they work"
    if model not in models:
        return False, f"{known}: the key works, but there is no such model: check OPENAI_MODEL"
    return True, f"{known}; the key works, and the model is there"


def _elai(settings: Settings, live: bool) -> tuple[bool, str]:
    if settings.elai_api_key is None:
        return True, "ELAI_API_KEY is not set: no presentation can be rendered by elai"
    at = f"; at {settings.elai_base_url}" if settings.elai_base_url else ""
    return True, f"ELAI_API_KEY is set ({origin('ELAI_API_KEY', settings.data)}){at}"


def _handlers(settings: Settings, live: bool) -> tuple[bool, str]:
    """By importing them, as a worker does."""
    named = settings.handler_modules
    where = f"JOBLEDGER_HANDLERS={','.join(named)}, {origin('JOBLEDGER_HANDLERS', settings.data)}" if named else ""
    try:
        kinds = sorted(own_handlers(settings))
    except ApplicationError as error:
        return False, str(error)
    except Exception as error:
        reason = f"cannot be imported: {type(error).__name__}: {error}; `jobledger worker` shows its place"
        return False, f"{where or 'those of an installed package'}: {reason}"
    if not kinds:
        return not named, f"{where}: there is no handler in there: decorate one with @handles" if named else NO_HANDLERS
    return True, f"{where or 'of installed packages'}: {', '.join(kinds)}"


def _traces(settings: Settings, live: bool) -> tuple[bool, str]:
    try:
        named = traces_endpoint()
    except ApplicationError as error:
        return False, str(error)
    return True, "sent to a collector" if named else "OTEL_EXPORTER_OTLP_ENDPOINT is not set: none are made"


LOOKS: tuple[tuple[str, Look], ...] = (
    ("settings", _settings),
    ("data folder", _data),
    ("database", _database),
    ("artifacts", _artifacts),
    ("chromium", _chromium),
    ("video", _video),
    ("openai", _openai),
    ("elai", _elai),
    ("handlers", _handlers),
    ("traces", _traces),
)
"""What is looked at, in this order."""


def _running(data: Path) -> str | None:
    """The address of the embedded server that runs in a data folder."""
    try:
        return embedded(data, _say).running()
    except OSError:  # no folder, or none of ours, which is told where folders are looked at
        return None


def _say(line: str) -> None:
    print(f"jobledger: {line}", file=sys.stderr)


def _writable(folder: Path) -> tuple[bool, str]:
    """Whether a folder can be written to or, if it is not there, be made; nothing is left in it."""
    try:
        if folder.is_dir():
            with tempfile.TemporaryFile(dir=folder):
                return True, f"{folder} can be written to"
        parent = next(parent for parent in folder.parents if parent.exists())
    except OSError as error:
        return False, f"{folder} cannot be written to: {error.strerror}"
    if not folder.exists() and parent.is_dir() and os.access(parent, os.W_OK | os.X_OK):
        return True, f"{folder} is not there yet, and can be made"
    return False, f"{folder} cannot be made in {parent}"
