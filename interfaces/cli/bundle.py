"""`jobledger audit bundle`: one job's bundle out of the archive of its month, offline."""

import argparse
import sys
from functools import partial
from pathlib import Path

from application.archives import ArchiveReader
from application.bundling import bundle_of
from domain.notes import Malformed, read_verifier_key
from interfaces.bootstrap import signed_by
from interfaces.settings import Settings

DONE, USAGE = 0, 2
CHUNK = 1024 * 1024


def run(_: Settings, given: argparse.Namespace) -> int:
    """Check all of the archive, and write the job's bundle to standard output."""
    try:
        for key in given.key:
            read_verifier_key(key)
        with Path(given.archive).open("rb") as archive:
            chunks = iter(partial(archive.read, CHUNK), b"")
            bundle = bundle_of(ArchiveReader(chunks, signed_by(given.key), _any_seal), given.job)
    except Malformed as error:
        print(f"jobledger: --key: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"jobledger: {given.archive}: {error.strerror}", file=sys.stderr)
        return USAGE
    sys.stdout.buffer.write(bundle)
    return DONE


def _any_seal(level: int, index: int, hashes: bytes) -> bool:
    """There is no database whose tiles the archive's could be held against: its checkpoint is what counts."""
    return True
