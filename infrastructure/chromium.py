"""Chromium, which opens a page as a reader would."""

import shutil

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find_chromium() -> str | None:
    """Where Chromium is on the PATH, under any of its names."""
    return next((found for name in NAMES if (found := shutil.which(name))), None)
