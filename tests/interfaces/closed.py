"""A service that is closed to who has no key."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2


class Closed:
    """A service with keys: two servers over one database, and a key of each role."""

    def __init__(self, dsn: str, urls: list[str], folder: Path) -> None:
        self.dsn = dsn
        self.urls = urls
        self.secrets: dict[str, str] = {}
        self._folder = folder

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A `jobledger keys` command on the service's machine, unless the environment leads elsewhere."""
        return subprocess.run(
            [sys.executable, "-m", "interfaces.cli.main", "keys", *arguments],
            cwd=self._folder,
            env={"PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(self._folder), **environment},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def make(self, name: str, role: str, *arguments: str) -> str:
        """The secret of a new key, made on the service's machine."""
        made = self.command("create", "--name", name, "--role", role, "--json", *arguments, DATABASE_URL=self.dsn)
        assert made.returncode == 0, made.stderr
        self.secrets[name] = json.loads(made.stdout)["secret"]
        return self.secrets[name]

    def ask_for(self, name: str, role: str, namespace: str | None = None) -> None:
        """Have a key made over HTTP, which takes no process of its own."""
        with self.http("admin") as http:
            made = http.post("/v1/keys", json={"name": name, "role": role, "namespace": namespace})
        assert made.status_code == 201, made.text
        self.secrets[name] = made.json()["secret"]

    def http(self, name: str | None, server: int = 0) -> httpx2.Client:
        headers = {"Authorization": f"Bearer {self.secrets[name]}"} if name else {}
        return httpx2.Client(base_url=self.urls[server], headers=headers, timeout=60)


def path_of(operation: Any) -> str:
    """An address of an operation, of things that there are not."""
    named = {"job_id": str(uuid4()), "key_id": str(uuid4()), "attempt": "1", "name": "x", "n": "1"}
    return re.sub(r"{(\w+)}", lambda found: named.get(found[1], "x"), operation.path)
