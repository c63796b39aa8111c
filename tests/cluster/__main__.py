"""Fail-over by hand: `python -m tests.cluster --minutes 3 --seed 1`. Exit status 1 when anything was wrong.

Needs root and Debian's postgresql-15, patroni, etcd-server and iproute2; the load and the checker are those of chaos.
"""

import argparse
import shlex
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.chaos.__main__ import say
from tests.chaos.report import report
from tests.chaos.round import Plan, Round
from tests.cluster.fleet import ClusterFleet
from tests.cluster.machines import missing
from tests.cluster.nemesis import ClusterNemesis


class ClusterRound(Round):
    """A round of chaos whose faults are those of a cluster."""

    def _fleet(self, begun: Any) -> Any:
        return ClusterFleet(self._folder, begun)

    def _nemesis(self, fleet: Any, dice: Any) -> Any:
        return ClusterNemesis(fleet, dice)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long to strike (each kind of fault once)")
    parser.add_argument("--seed", type=int, default=1, help="of the dice (1)")
    parser.add_argument("--callers", type=int, default=20, help="how many ask for jobs side by side (20)")
    parser.add_argument("--only", nargs="+", default=[], metavar="KIND", help="kinds of faults (all)")
    parser.add_argument("--report", type=Path, metavar="FILE", help="where the table goes, too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to leave the services' logs (nowhere)")
    given = parser.parse_args()
    if (reason := missing()) is not None:
        print(f"there can be no cluster here: {reason}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that everything that was started is ended
    plan = Plan(seed=given.seed, minutes=given.minutes, callers=given.callers, kinds=given.only)
    with tempfile.TemporaryDirectory(prefix="cluster-") as temporary:
        folder = (given.keep or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        outcome = ClusterRound(plan, folder, say).run()
    text = report(outcome, f"python -m tests.cluster {shlex.join(sys.argv[1:])}").replace("# Chaos", "# Fail-over", 1)
    print(text)
    if given.report:
        given.report.write_text(text)
    return 1 if outcome.violations else 0


if __name__ == "__main__":
    sys.exit(main())
