"""The command line: `jobledger …`."""
