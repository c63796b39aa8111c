"""Plain handlers for the tests of workers: a process of their own imports them from here."""

import os
import signal
import sys
import time
from pathlib import Path

from msgspec import Struct

from application.handlers import GiveUp, PlainJobContext


class Where(Struct):
    """A folder in which a handler leaves marks, and what it is to do."""

    folder: str = ""
    do: str = ""

    def mark(self, name: str) -> str:
        with (Path(self.folder) / "marks").open("a") as marks:
            marks.write(f"{name}\n")
        return name


def pid(job: PlainJobContext, where: Where) -> int:
    return os.getpid()


def reread(job: PlainJobContext, where: Where) -> str:
    """What an attempt saved, the next one reads."""
    film = job.step("film", job.save_artifact, "film", bytes(range(256)) * 400, "video/mp4")
    if job.attempt == 1:
        raise RuntimeError("the power went")
    return "same" if job.read_artifact(film) == bytes(range(256)) * 400 else "another"


def steps(job: PlainJobContext, where: Where) -> dict[str, str]:
    one = job.step("one", where.mark, "one")
    order = job.submit("order", place, where)
    job.progress(0.5, "half")
    if job.attempt == 1:
        raise RuntimeError("the power went")
    artifact = job.save_artifact("page", b"<html>", "text/html")
    film = Path(where.folder) / "film"
    film.write_bytes(bytes(100_000))
    job.save_artifact("film", film, "video/mp4")
    return {"one": one, "order": order, "page": artifact.sha256}


def place(where: Where, *, idempotency_key: str) -> str:
    return where.mark(idempotency_key)


def hog(job: PlainJobContext, where: Where) -> str:
    """Uses the processor, and holds the interpreter, until there is a file `go`."""
    where.mark("begun")
    while not (Path(where.folder) / "go").exists():
        sum(range(1_000_000))
    return "done"


def polite(job: PlainJobContext, where: Where) -> str:
    """Notices at its next call that it is to stop, after it has recorded what it had."""
    job.step("one", where.mark, "one")
    while not job.cancelled:
        time.sleep(0.01)
    try:
        job.step("two", where.mark, "two")
    finally:
        where.mark("stopped")
    return "never"


def finishing(job: PlainJobContext, where: Where) -> None:
    """Is told to stop in the middle of a step, which it brings to its end."""
    job.step("long", long, job, where)
    where.mark("went on")
    job.progress(1)
    where.mark("never")


def long(job: PlainJobContext, where: Where) -> str:
    where.mark("begun")
    while not job.cancelled:
        time.sleep(0.01)
    return "kept"


def end(job: PlainJobContext, where: Where) -> str:
    """Ends its process in some way, in the first attempt."""
    if job.attempt == 2:
        return f"by {job.attempt}"
    match where.do:
        case "segfault":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "leave":
            sys.exit("leaving")
    raise GiveUp("still there")
