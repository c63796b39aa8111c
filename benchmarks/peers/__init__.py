"""The peers, side by side: each in an environment of its own, by its best documented settings, on the same server."""
