"""The page to ask for something new: a question, or a deck."""

from typing import Any

from litestar import Request, Response, get

from application.presentation import MOST_SLIDES
from interfaces.console.frame import page
from interfaces.http.guard import CLIENT


@get("/new", roles=CLIENT)
async def show_new(request: Request[Any, Any, Any]) -> Response[Any]:
    return page(request, "new.html", most_slides=MOST_SLIDES)
