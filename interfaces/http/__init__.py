"""The HTTP contract, /v1."""
