"""Who talks to us: HTTP, the command line, settings, and the one composition root."""
