"""An environment for each peer: made once in a cache folder, of pinned releases from PyPI, within bounds."""

import subprocess
import sys
import venv
from pathlib import Path

from platformdirs import user_cache_dir

INSTALL_SECONDS = 300
CACHE = Path(user_cache_dir("jobledger-benchmarks"))


class NotMade(Exception):
    """The environment could not be made; says why, in a line."""


def environment(requirements: tuple[str, ...], cache: Path = CACHE) -> Path:
    """The Python of an environment with these releases. Raises NotMade."""
    folder = cache / "-".join(requirements).replace("[", "_").replace("]", "_").replace("==", "_")
    python, made = folder / "bin" / "python", folder / "made"
    if made.exists() and python.exists():
        return python
    try:
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run(
            [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *requirements],
            check=True,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise NotMade(f"pip took longer than {INSTALL_SECONDS} s") from error
    except subprocess.CalledProcessError as error:
        raise NotMade((str(error.stderr or error).strip() or "pip failed").splitlines()[-1]) from error
    except OSError as error:
        raise NotMade(str(error)) from error
    made.touch()
    return python


def ours() -> Path:
    """The Python that runs this."""
    return Path(sys.executable)
