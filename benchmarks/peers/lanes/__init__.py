"""A program for each peer, run by the Python of its environment; see `benchmarks.peers.lane`."""
