"""The addresses of the console."""

from litestar import Router

from interfaces.console.audit import show_audit, show_log
from interfaces.console.frame import answer_error
from interfaces.console.jobs import show_job, show_jobs
from interfaces.console.keys import show_keys
from interfaces.console.new import show_new
from interfaces.console.operations import (
    show_failures,
    show_overview,
    show_projections,
    show_queues,
    show_workers,
)
from interfaces.console.sign_in import show_first, show_sign_in, sign_in, sign_out
from interfaces.console.static_files import get_static


def console() -> Router:
    """Its pages, whose errors are pages too."""
    return Router(
        path="/",
        route_handlers=[
            show_first,
            show_sign_in,
            sign_in,
            sign_out,
            show_jobs,
            show_job,
            show_new,
            show_overview,
            show_failures,
            show_workers,
            show_queues,
            show_projections,
            show_log,
            show_audit,
            show_keys,
            get_static,
        ],
        exception_handlers={Exception: answer_error},
    )
