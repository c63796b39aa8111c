"""The recovery table: by kind of fault, how soon throughput was as before."""

import os
import platform
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from statistics import median

from tests.chaos.round import Outcome, Strike

HEAD = """
| fault | count | meanwhile | recovery p50 | recovery max | after / before |
|---|---:|---:|---:|---:|---:|
""".strip()


def report(outcome: Outcome, command: str) -> str:
    """The round as a page of Markdown."""
    plan = outcome.plan
    found = "\n".join(f"* {text}" for text in outcome.violations) or "Nothing was lost, repeated or out of order."
    machine = f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}"
    load = f"{plan.callers / plan.period:.0f} jobs/s, by {plan.callers} callers with a job every {plan.period:g} s each"
    return f"""# Chaos, {datetime.now(UTC):%Y-%m-%d}

    {command}

* {machine}, load average {os.getloadavg()[2]:.1f} over the last 15 minutes
* {load}
* {outcome.jobs} acknowledged jobs, {outcome.events} events
* {len(outcome.strikes)} faults in {outcome.seconds / 60:.0f} minutes {" ".join(outcome.left_out)}
* {outcome.repeated} requests were sent again
* followers of the whole log changed servers {outcome.hops} times
* {outcome.checkpoints} signed checkpoints were kept and found in the log

{found}

`meanwhile`: throughput while the fault lasted, of that before. `recovery`: seconds from when its cause was gone until
two seconds had at least 95 % of the throughput before. `after`: once recovered, until the next fault; medians.

{table(outcome.strikes)}
"""


def table(strikes: Sequence[Strike]) -> str:
    kinds: dict[str, list[Strike]] = defaultdict(list)
    for strike in strikes:
        kinds[strike.kind].append(strike)
    rows = [_row(kind, kinds[kind]) for kind in sorted(kinds)]
    return "\n".join([HEAD, *rows, _row("**all**", strikes)])


def _row(kind: str, strikes: Sequence[Strike]) -> str:
    recovered = [strike.recovery for strike in strikes if strike.recovery is not None]
    times = f"{median(recovered):.1f} s | {max(recovered):.1f} s" if recovered else "– | –"
    if missing := len(strikes) - len(recovered):
        times += f" ({missing} not)"
    lasting = [strike.during / strike.before for strike in strikes if strike.lasted >= 1 and strike.before]
    meanwhile = f"{median(lasting):.0%}" if lasting else ""
    ratios = [strike.after / strike.before for strike in strikes if strike.before]
    after = f"{median(ratios):.0%}" if ratios else "–"
    return f"| {kind} | {len(strikes)} | {meanwhile} | {times} | {after} |"
