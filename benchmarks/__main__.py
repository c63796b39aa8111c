"""`python -m benchmarks`: each measure several times, interleaved, medians with least and most, and ratios.

Starts its own server (fsync on) in a temporary folder, and ends it, also when it is told to end (SIGTERM, SIGHUP,
Ctrl-C). `--yardstick FILE` adds the bare log of the design (a script that prints `created N jobs/s` and `processed N
jobs/s`), so that both are measured in the same minutes.
`--only NAME …` measures these alone. `--peers` measures other libraries beside ours instead (benchmarks/peers), and
`--steady` what an hour of work does (benchmarks/steady.py).
"""

import argparse
import logging
import os
import platform
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.bench import Bench, Results
from benchmarks.measures import MEASURES, Measures
from benchmarks.peers.comparison import Comparison, Scale
from benchmarks.peers.peers import PEERS
from benchmarks.peers.report import chart, tables
from benchmarks.steady import steady, table
from infrastructure.embedded import EmbeddedPostgres
from infrastructure.logs import configure as configure_logs

TOLD_TO_END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    given = _given()
    for number in TOLD_TO_END:
        signal.signal(number, _end_all)
    configure_logs("console", logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="jobledger-benchmark-") as name:
        folder = Path(name)
        server = EmbeddedPostgres(folder / "data", lambda _: None)
        try:
            bench = Measures(server.start(), folder, given.jobs, given.yardstick, given.events)
            if given.peers:
                said = _peers(bench, given, folder)
            elif given.steady:
                said = table(*steady(bench, given.minutes))
            else:
                for _ in _rounds(given.rounds):
                    bench.round(given.only)
                assert all(value > 0 for values in bench.results.values() for value in values), bench.results
                said = _table(bench.results)
        finally:
            server.stop()
    print(f"{_command()}: {_machine()}, PostgreSQL 18, fsync on, synchronous_commit on\n")
    print(said)


def _end_all(number: int, _: object) -> None:
    """Leave, and end on the way out what was started, with the status of who is ended by that signal.

    Nothing more is heard meanwhile: who hangs up tells each process of the terminal, and often more than once.
    """
    for other in TOLD_TO_END:
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=_count, default=5, help="how often to measure each (5)")
    parser.add_argument("--jobs", type=_count, default=20_000, help="jobs in a bulk measure (20000)")
    parser.add_argument("--yardstick", type=Path, help="a script that measures the bare log, for the ratios")
    parser.add_argument("--events", type=float, default=1.0, help="millions of events of a full log (1)")
    parser.add_argument(
        "--only", nargs="+", choices=MEASURES, default=MEASURES, metavar="NAME", help=", ".join(MEASURES)
    )
    parser.add_argument("--peers", nargs="*", metavar="NAME", help=f"compare with {', '.join(p.name for p in PEERS)}")
    parser.add_argument("--chart", type=Path, help="where the comparison is drawn (SVG)")
    parser.add_argument("--steady", action="store_true", help="hold 60 %% of what is done at most")
    parser.add_argument("--minutes", type=float, default=60.0, help="for so long (60)")
    given = parser.parse_args()
    if unknown := sorted({*(given.peers or ())} - {p.name for p in PEERS}):
        parser.error(f"no peers are {', '.join(unknown)}")
    given.peers = None if given.peers is None else [p for p in PEERS if not given.peers or p.name in given.peers]
    return given


def _count(given: str) -> int:
    if not given.isdecimal() or int(given) < 1:
        raise argparse.ArgumentTypeError(f"{given!r} is no number from 1 on")
    return int(given)


def _peers(bench: Bench, given: argparse.Namespace, folder: Path) -> str:
    comparison = Comparison(given.peers, bench.empty_database, folder, Scale(jobs=given.jobs), given.yardstick)
    for _ in _rounds(given.rounds):
        comparison.round()
    if given.chart:
        given.chart.write_text(chart(comparison, f"jobledger beside its peers: {_machine()}, PostgreSQL 18"))
    return tables(comparison)


def _table(results: Results) -> str:
    lines = ["| measure | median | least | most |", "|---|---:|---:|---:|"]
    for name, values in results.items():
        median, least, most = (f"{n:,.0f}" if n >= 100 else f"{n:.1f}" for n in _spread(values))
        lines.append(f"| {name} | {median} | {least} | {most} |")
    ratios = (
        ("batch create / bare log", "batch create, jobs/s", "limit: bare log, created /s"),
        ("processed by 1 / bare log", "processed by 1 worker process, jobs/s", "limit: bare log, processed by 1 /s"),
        ("processed by 2 / bare log", "processed by 2 worker processes, jobs/s", "limit: bare log, processed by 2 /s"),
        ("32 callers / pgbench inserts", "single creates, 32 callers /s", "limit: pgbench single-row inserts /s"),
        ("HTTP status reads / bare handler", "HTTP status reads /s", "limit: bare handler, GET /s"),
        ("HTTP creates / bare handler", "HTTP creates /s", "limit: bare handler, POST /s"),
    )
    lines += ["", "| ratio, within each round | median | least | most |", "|---|---:|---:|---:|"]
    for name, ours, limit in ratios:
        if ours in results and limit in results:
            each = [a / b for a, b in zip(results[ours], results[limit], strict=True)]
            lines.append("| {} | {:.2f} | {:.2f} | {:.2f} |".format(name, *_spread(each)))
    return "\n".join(lines)


def _spread(values: list[float]) -> tuple[float, float, float]:
    return statistics.median(values), min(values), max(values)


def _rounds(count: int) -> Iterator[int]:
    for n in range(count):
        print(f"round {n + 1} of {count}", file=sys.stderr, flush=True)
        yield n


def _command() -> str:
    return " ".join(["python -m benchmarks", *sys.argv[1:]])


def _machine() -> str:
    return f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
