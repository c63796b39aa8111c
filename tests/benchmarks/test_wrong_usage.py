"""Programs of ours that cannot do what they are told say so at once, and start nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def ended(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env={"PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("flags", ["--rounds 0", "--rounds -1", "--jobs 0", "--rounds x", "--peers nobody"])
def test_a_benchmark_of_nothing_is_refused(flags: str) -> None:
    done = ended("benchmarks", *flags.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert flags.split()[1] in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("program", ["benchmarks", "tests.gallery", "tests.chaos", "tests.cluster"])
def test_who_asks_for_help_gets_it(program: str) -> None:
    done = ended(program, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: python -m {program}")
