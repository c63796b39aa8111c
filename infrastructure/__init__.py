"""How it is done: Postgres, the embedded server, artifacts, language models, logs."""
