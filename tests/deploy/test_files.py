"""What deploy/ holds is true: each file has its format's shape, and names only settings and commands that there are."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from interfaces.cli.main import parser
from interfaces.cli.serve import SHUTDOWN_SECONDS
from interfaces.settings import FOREIGN, Settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNITS = sorted((DEPLOY / "systemd").iterdir())
VARIABLES = {field.alias for field in Settings.model_fields.values()}
BIN = Path(sys.executable).parent
ROLES = ("migrate", "api", "worker", "projector")
LAST_WORDS = 15
"""Seconds that a worker may need after its grace."""
Json = Any


def run(program: str | Path, *arguments: str | Path, **environment: str) -> str:
    """What a program prints that ends well within a minute."""
    done = subprocess.run(
        [program, *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def compose() -> Json:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def kubernetes() -> dict[tuple[str, str], Json]:
    """What the manifest declares, by kind and name."""
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    return {(each["kind"], each["metadata"]["name"]): each for each in documents}


def pods(kubernetes: dict[tuple[str, str], Json]) -> Iterator[tuple[str, Json]]:
    for (_, name), each in kubernetes.items():
        if "template" in each.get("spec", {}):
            yield name.removeprefix("jobledger-"), each["spec"]["template"]["spec"]


def test_the_compose_file_has_the_shape_of_its_specification() -> None:
    run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_the_manifest_has_the_shape_of_kubernetes() -> None:
    run(BIN / "kubernetes-validate", "--strict", DEPLOY / "kubernetes.yaml")


def test_every_command_that_is_started_is_one_of_ours(compose: Json, kubernetes: dict[tuple[str, str], Json]) -> None:
    started = {name: compose["services"][name]["command"] for name in ROLES}
    by_pod = {name: pod["containers"][0]["args"] for name, pod in pods(kubernetes)}
    by_unit = {unit.stem.removeprefix("jobledger-"): command_of(unit).split()[1:] for unit in UNITS}
    assert by_pod == by_unit == started
    for role, arguments in started.items():
        assert arguments[0] == role
        parser().parse_args(arguments)


def test_every_variable_that_is_set_is_a_setting(compose: Json, kubernetes: dict[tuple[str, str], Json]) -> None:
    named = set(re.findall(r"^ +([A-Z][A-Z_]+)=", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE))
    named -= {"PYTHONDONTWRITEBYTECODE"}
    for role in ROLES:
        named |= set(compose["services"][role]["environment"])
    for _, pod in pods(kubernetes):
        named |= {each["name"] for each in pod["containers"][0]["env"]}
    named |= set(kubernetes["ConfigMap", "jobledger"]["data"])
    for unit in UNITS:
        named |= set(re.findall(r"([A-Z_]+)=", setting(unit, "Environment")))
        assert f"HOME={setting(unit, 'WorkingDirectory')}" in setting(unit, "Environment")  # others are out of reach
    named -= {"HOME"}
    assert len(named) > 8
    assert {name for name in named if not name.startswith(FOREIGN)} <= VARIABLES


def test_each_has_the_time_it_needs_to_stop(compose: Json, kubernetes: dict[tuple[str, str], Json]) -> None:
    waits = [
        {role: int(compose["services"][role]["stop_grace_period"].rstrip("s")) for role in ROLES[1:]},
        {unit.stem.removeprefix("jobledger-"): int(setting(unit, "TimeoutStopSec")) for unit in UNITS[:1] + UNITS[2:]},
        {role: _grace(pod) for role, pod in pods(kubernetes) if role != "migrate"},
    ]
    grace = parser().parse_args(compose["services"]["worker"]["command"]).grace
    for wait in waits:
        assert wait["worker"] >= grace + LAST_WORDS
        assert min(wait["api"], wait["projector"]) > SHUTDOWN_SECONDS


def _grace(pod: Json) -> int:
    """Seconds from a pod's TERM to its KILL."""
    stop = pod["containers"][0].get("lifecycle", {}).get("preStop")
    return int(pod["terminationGracePeriodSeconds"]) - (int(stop["exec"]["command"][1]) if stop else 0)


def test_pods_write_to_their_volumes_only_and_may_do_nothing_else(kubernetes: dict[tuple[str, str], Json]) -> None:
    for _, pod in pods(kubernetes):
        assert pod["securityContext"]["runAsNonRoot"]
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {each["mountPath"] for each in container["volumeMounts"]} == {"/tmp", "/data"}
    for role in ROLES[1:]:
        budget = kubernetes["PodDisruptionBudget", f"jobledger-{role}"]["spec"]["selector"]["matchLabels"]
        workload = kubernetes["StatefulSet" if role == "projector" else "Deployment", f"jobledger-{role}"]
        assert budget == workload["spec"]["template"]["metadata"]["labels"]
        assert workload["spec"]["replicas"] > 1
    probes = kubernetes["Deployment", "jobledger-api"]["spec"]["template"]["spec"]["containers"][0]
    assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert {probes[probe]["httpGet"]["path"] for probe in ("livenessProbe", "startupProbe")} == {"/livez"}


def test_pods_run_as_the_user_and_the_group_of_the_image(kubernetes: dict[tuple[str, str], Json]) -> None:
    made = (DEPLOY / "Dockerfile").read_text()
    for _, pod in pods(kubernetes):
        user, group = pod["securityContext"]["runAsUser"], pod["securityContext"]["runAsGroup"]
        assert f"groupadd --gid {group} jobledger" in made
        assert f"useradd --uid {user} --gid {group} " in made
        assert pod["securityContext"]["fsGroup"] == group


def test_the_image_is_made_of_what_is_there_and_does_not_run_as_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
    instructions = [line.split(maxsplit=1) for line in lines if line and not line.startswith(("#", " "))]
    copied = [rest.split()[:-1] for word, rest in instructions if word == "COPY" and not rest.startswith("--from")]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert {name for names in copied for name in names} == kept
    assert [name for name in kept if not (ROOT / name).exists()] == []
    last = dict(instructions)
    assert any(" libfribidi0 " in rest for word, rest in instructions if word == "RUN")  # or letters do not join
    assert (last["USER"], last["ENTRYPOINT"], last["CMD"]) == ("10001", '["jobledger"]', '["api"]')


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_systemd_takes_the_unit_and_finds_it_little_exposed(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on the PATH: install systemd, so that units are verified")
    for each in UNITS:
        here = each.read_text().replace("/opt/jobledger/bin/jobledger", str(BIN / "jobledger"))
        (tmp_path / each.name).write_text(here)
    assert run(analyze, "verify", "--man=no", tmp_path / unit.name) == ""
    found = run(analyze, "security", "--offline=true", "--threshold=20", "--no-pager", tmp_path / unit.name)
    assert "OK" in found.splitlines()[-1]


def command_of(unit: Path) -> str:
    return setting(unit, "ExecStart")


def setting(unit: Path, name: str) -> str:
    (value,) = re.findall(rf"^{name}=(.*)$", unit.read_text(), re.MULTILINE)
    return str(value)
