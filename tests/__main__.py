"""The one check command: `python -m tests` runs the formatter, the linters, the type checker and all tests."""

import subprocess
import sys
from pathlib import Path

PYTHON = sys.executable
CHECKS = (
    (PYTHON, "-m", "ruff", "format", "--check", "."),
    (PYTHON, "-m", "ruff", "check", "."),
    (PYTHON, "-m", "mypy"),
    (str(Path(PYTHON).parent / "lint-imports"),),
    (PYTHON, "-m", "pytest", *sys.argv[1:]),
)


def main() -> int:
    """Run every check, whatever the others say; the exit status is 0 when all passed. Arguments go to pytest."""
    failed = []
    for check in CHECKS:
        name = " ".join(check).replace(f"{PYTHON} -m ", "").replace(f"{Path(PYTHON).parent}/", "")
        print(f"\n--- {name}", flush=True)
        if subprocess.run(check, cwd=Path(__file__).parents[1]).returncode:
            failed.append(name)
    print(f"\n{'failed: ' + ', '.join(failed) if failed else 'all checks passed'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
