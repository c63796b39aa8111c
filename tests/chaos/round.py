"""A round: load on a fleet, the nemesis at it one fault after the other, and the checker at the end."""

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from msgspec import Struct

from tests.chaos import marks
from tests.chaos.callers import Caller, Hand
from tests.chaos.checker import Checker
from tests.chaos.client import PATIENCE, Client, Doors
from tests.chaos.fleet import Fleet
from tests.chaos.meter import Meter
from tests.chaos.nemesis import Nemesis
from tests.chaos.streams import LogFollower
from tests.chaos.witness import Witness

CHECKPOINT_SECONDS = 2.0
RECOVERY_PATIENCE = 60.0
WARM_UP_SECONDS = 5.0


class Plan(Struct, frozen=True, kw_only=True):
    """How a round goes.

    `calm`: seconds before and after each fault; `period`: of a caller, from job to job, however long jobs take within
    it; `enough`: the part of the throughput before at which it counts as recovered.
    """

    seed: int
    minutes: float | None
    """None: each kind of fault once."""
    calm: float = 8.0
    callers: int = 30
    period: float = 2.0
    enough: float = 0.95
    kinds: Sequence[str] = ()
    """None given: all there are."""


class Strike(Struct):
    """One fault: when it began and was gone, and jobs a second before, meanwhile, and once it was as before.

    `recovery`: seconds from when its cause was gone until throughput was as before; None when it was not in time.
    """

    kind: str
    lasted: float
    before: float
    during: float
    recovery: float | None
    after: float = 0.0


class Outcome(Struct):
    """What a round came to; it was survived when there are neither violations nor differences."""

    plan: Plan
    strikes: list[Strike]
    violations: list[str]
    left_out: list[str]
    jobs: int
    events: int
    repeated: int
    hops: int
    checkpoints: int
    seconds: float


class Round:
    """Runs a plan in a folder."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._folder = folder
        self._say = say
        self._witness = Witness()
        self._meter = Meter()
        self._enough = threading.Event()

    def run(self) -> Outcome:
        begun = time.monotonic()
        with self._fleet(lambda what: self._say(f"starting {what}")) as fleet:
            nemesis = self._nemesis(fleet, random.Random(self._plan.seed))
            for missing in nemesis.left_out():
                self._say(missing)
            doors = Doors(fleet.urls)
            followers = [LogFollower(doors, self._witness, self._plan.seed + n) for n in range(2)]
            with ExitStack() as stack:
                self._load(doors, stack)
                stack.callback(self._enough.set)
                time.sleep(WARM_UP_SECONDS)
                strikes = [self._strike(kind, nemesis, fleet) for kind in self._kinds(nemesis)]
                self._calm_after(strikes)
                self._say("letting all jobs end")
            checker = Checker(fleet.dsn, fleet.urls, self._witness, self._folder)
            checker.check(followers, marks.read(fleet.marks), self._say)
        return Outcome(
            plan=self._plan,
            strikes=strikes,
            violations=[*self._witness.violations, *checker.differences],
            left_out=nemesis.left_out(),
            jobs=len(self._witness.created),
            events=checker.events,
            repeated=self._witness.repeated,
            hops=sum(follower.hops for follower in followers),
            checkpoints=len(self._witness.checkpoints),
            seconds=time.monotonic() - begun,
        )

    def _fleet(self, begun: Callable[[str], None]) -> Any:
        """What is struck."""
        return Fleet(self._folder, begun)

    def _nemesis(self, fleet: Any, dice: random.Random) -> Any:
        """What strikes it."""
        return Nemesis(fleet, dice)

    def _load(self, doors: Doors, stack: ExitStack) -> None:
        plan = self._plan
        for n in range(plan.callers):
            seed = plan.seed * 1000 + n
            caller = Caller(n, doors, self._witness, self._meter, self._enough, seed=seed, period=plan.period)
            stack.enter_context(closing(caller))
        stack.enter_context(closing(Hand(doors, self._witness, self._enough, seed=plan.seed)))
        stack.enter_context(closing(Auditor(doors, self._witness, self._enough, seed=plan.seed)))

    def _kinds(self, nemesis: Any) -> Iterator[str]:
        """Each kind in each turn, in another order, until time is up."""
        dice = random.Random(self._plan.seed)
        until = time.monotonic() + 60 * (self._plan.minutes or 0)
        kinds = [kind for kind in nemesis.faults if not self._plan.kinds or kind in self._plan.kinds]
        while True:
            for kind in dice.sample(kinds, len(kinds)):
                yield kind
                if self._plan.minutes is not None and time.monotonic() > until:
                    return
            if self._plan.minutes is None:
                return

    def _strike(self, kind: str, nemesis: Any, fleet: Any) -> Strike:
        fleet.wait_until_ready()
        time.sleep(self._plan.calm)
        begun = time.monotonic()
        before = min(self._meter.rate(begun - self._plan.calm, begun), self._plan.callers / self._plan.period)
        try:
            with nemesis.faults[kind]():
                pass
        except Exception as error:  # whatever it is, the round goes on, and fails
            self._witness.violation(f"{kind}: {error!r}")
        gone = time.monotonic()
        strike = Strike(kind, gone - begun, before, self._meter.rate(begun, gone), None)
        strike.recovery = self._meter.wait_for(self._plan.enough * before, gone, RECOVERY_PATIENCE)
        back = "not" if strike.recovery is None else f"after {strike.recovery:.1f} s"
        self._say(f"{kind}: {strike.lasted:.1f} s; {before:.0f} jobs/s before; as before {back}")
        for name in fleet.dead():
            self._witness.violation(f"{kind}: {name} ended by itself")
        return strike

    def _calm_after(self, strikes: list[Strike]) -> None:
        """What was before a strike was after the one before it."""
        time.sleep(self._plan.calm)
        now = time.monotonic()
        last = self._meter.rate(now - self._plan.calm, now)
        for strike, after in zip(strikes, [*(following.before for following in strikes[1:]), last], strict=True):
            strike.after = after


class Auditor:
    """Asks for the signed checkpoint now and then, and keeps each that it was shown."""

    def __init__(self, doors: Doors, witness: Witness, enough: threading.Event, *, seed: int) -> None:
        self._enough = enough
        self._witness = witness
        self._ask = Client(doors, witness, seed, enough)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._enough.wait(CHECKPOINT_SECONDS):
            try:
                answer = self._ask("GET", "/v1/audit/checkpoint")
            except TimeoutError as error:
                self._witness.violation(str(error))
                continue
            if answer.status == 200:
                self._witness.checkpoint(answer.body.decode())
        self._ask.close()
