"""Signed links to files: handed out with jobs, and checked when somebody follows them."""

import unicodedata
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from litestar import Request
from msgspec import Meta, Struct, structs

from application.errors import Forbidden
from application.jobs import ArtifactView, JobView
from application.keys import Unauthenticated
from application.signed_links import SignedLinks
from interfaces.http.guard import caller_of


class LinkQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """What makes a link a signed one: until when it is good, in unix seconds, and the signature."""

    expires: Annotated[int, Meta(ge=0, le=2**53)] | None = None
    signature: Annotated[str, Meta(max_length=100)] | None = None


def artifact_path(id: UUID, name: str) -> str:
    """Where a file's content is; one path, however its name was written."""
    return f"/v1/jobs/{id}/artifacts/{quote(unicodedata.normalize('NFC', name), safe='')}"


async def linked(request: Request[Any, Any, Any], job: JobView) -> JobView:
    """The job as it is now, with links to its files."""
    if not job.artifacts:
        return job
    return structs.replace(job, artifacts=[await linked_file(request, job.id, file) for file in job.artifacts])


async def linked_file(request: Request[Any, Any, Any], id: UUID, file: ArtifactView) -> ArtifactView:
    return structs.replace(file, url=await signed(request, artifact_path(id, file.name)))


async def signed(request: Request[Any, Any, Any], path: str) -> str:
    """The link to a path."""
    return await _links(request).sign(path)


async def check_link(request: Request[Any, Any, Any], path: str, link: LinkQuery) -> None:
    """A plain request is served to whoever may ask; one that says that it is signed has to be.

    Raises Unauthenticated and Forbidden.
    """
    if link.expires is None and link.signature is None:
        if caller_of(request.scope) is None:
            raise Unauthenticated("this file needs a key, or a signed link")
        return
    if link.expires is None or link.signature is None:
        raise Forbidden("a signed link has both `expires` and `signature`; ask for the job again for a whole one")
    await _links(request).check(path, link.expires, link.signature)


def _links(request: Request[Any, Any, Any]) -> SignedLinks:
    links: SignedLinks = request.app.state.service.links
    return links
