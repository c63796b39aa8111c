"""The language models behind the port of `application.language`."""
