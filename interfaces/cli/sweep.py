"""`jobledger sweep`: remove the artifacts' contents that no event names, or tell what that would free."""

import argparse
import sys

from msgspec.json import encode
from pydantic import SecretStr

from interfaces.bootstrap import configure_logs, embedded, sweep
from interfaces.settings import Settings

DONE, USAGE, UNREACHABLE = 0, 2, 3
LONGEST_GRACE = 1e9


def run(settings: Settings, given: argparse.Namespace) -> int:
    """Sweep once, over DATABASE_URL or the database of a running `jobledger up`."""
    if not 0 <= given.older_than <= LONGEST_GRACE:
        print(f"jobledger: --older-than: must be 0 to {LONGEST_GRACE:.0f} seconds", file=sys.stderr)
        return USAGE
    configure_logs(settings.log)
    if settings.database_url is None:
        address = embedded(settings.data, print).running()
        if address is None:
            print(f"jobledger: DATABASE_URL is not set, and no `jobledger up` runs in {settings.data}", file=sys.stderr)
            return UNREACHABLE
        settings = settings.model_copy(update={"database_url": SecretStr(address)})
    swept = sweep(settings, given.older_than, dry_run=given.dry_run)
    if given.json:
        print(encode(swept).decode())
    else:
        done = "would free" if swept.dry_run else "freed"
        print(f"{done} {swept.bytes} bytes in {swept.files} files that no event names")
    return DONE
