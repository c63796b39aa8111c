"""The examples that travel with the package."""

from pathlib import Path

_ROOMS = Path(__file__).parents[1]


def example(name: str) -> Path:
    """An example file: in the installed package, or in the checkout it was installed from."""
    installed = _ROOMS / "examples" / name
    return installed if installed.exists() else _ROOMS.parent / "examples" / name
