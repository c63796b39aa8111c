"""Errors as they are told to whoever runs the service, who may know more than callers."""

from application.errors import ApplicationError


def with_cause(error: ApplicationError) -> str:
    """An error and, on the same line, what the server or the network said: a wrong password, say, or a certificate."""
    why = " ".join(str(error.__cause__).split()) if error.__cause__ else ""
    return f"{error} ({why})" if why not in str(error) else str(error)
