"""Chaos by hand: `python -m tests.chaos --minutes 30 --seed 1 --report FILE`. Exit status 1 when anything was wrong."""

import argparse
import shlex
import signal
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from tests.chaos.report import report
from tests.chaos.round import Plan, Round


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long to strike (each kind of fault once)")
    parser.add_argument("--seed", type=int, default=1, help="of the dice (1)")
    parser.add_argument("--calm", type=float, default=8.0, metavar="SECONDS", help="before and after each fault (8)")
    parser.add_argument("--callers", type=int, default=30, help="how many ask for jobs side by side (30)")
    parser.add_argument("--period", type=float, default=2.0, metavar="SECONDS", help="of each, job to job (2)")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="kinds of faults (all)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the table goes, too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave the logs (nowhere)")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything that was started is ended
    plan = Plan(
        seed=given.seed,
        minutes=given.minutes,
        calm=given.calm,
        callers=given.callers,
        period=given.period,
        kinds=given.only,
    )
    if given.keep:
        given.keep.mkdir(parents=True, exist_ok=True)
        outcome = Round(plan, given.keep.resolve(), say).run()
    else:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            outcome = Round(plan, Path(folder), say).run()
    text = report(outcome, f"python -m tests.chaos {shlex.join(sys.argv[1:])}")
    print(text)
    if given.report:
        given.report.write_text(text)
    return 1 if outcome.violations else 0


def say(line: str) -> None:
    print(f"{datetime.now(UTC):%H:%M:%S} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
