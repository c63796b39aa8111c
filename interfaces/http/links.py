"""Where a client goes on from an answer: OpenAPI's links, which hand parts of it to the next operation."""

from typing import Any

from msgspec import Struct

Json = dict[str, Any]
OF_THE_PATH = {"job_id": "$request.path.job_id"}


class Link(Struct, frozen=True, kw_only=True):
    """One way on: the operation, and runtime expressions for its parameters and its body."""

    name: str
    to: str
    says: str
    parameters: dict[str, str] = {}
    body: Any = None

    def described(self) -> Json:
        body = {} if self.body is None else {"requestBody": self.body}
        return {"operationId": self.to, "description": self.says, "parameters": self.parameters, **body}


def to_job(expression: str) -> tuple[Link, ...]:
    """To the job whose id is there."""
    return (Link(name="job", to="get_job", says="The job", parameters={"job_id": expression}),)


THE_JOB = {"job_id": "$response.body#/id"}
FROM_A_JOB = (
    *to_job("$response.body#/id"),
    Link(
        name="then",
        to="get_job",
        says="The job as it was at this version",
        parameters={**THE_JOB, "at_version": "$response.body#/version"},
    ),
    Link(name="events", to="list_events", says="Its history", parameters=THE_JOB),
    Link(name="why", to="why_job", says="Why it is where it is", parameters=THE_JOB),
    Link(
        name="diff",
        to="diff_job",
        says="What changed since it was created",
        parameters={**THE_JOB, "from": "1", "to": "$response.body#/version"},
    ),
    Link(name="artifacts", to="list_artifacts", says="The files it made", parameters=THE_JOB),
    Link(name="cancel", to="cancel_job", says="Cancel it", parameters=THE_JOB),
    Link(name="retry", to="retry_job", says="Send it round again, once it has finished", parameters=THE_JOB),
    Link(
        name="claim",
        to="claim_jobs",
        says="Claim jobs of its queue and kind",
        body={"queues": ["$response.body#/queue"], "kinds": ["$response.body#/kind"]},
    ),
)
LINKS: dict[tuple[str, int], tuple[Link, ...]] = {
    ("create_job", 202): FROM_A_JOB,
    ("get_job", 200): FROM_A_JOB,
    ("cancel_job", 202): FROM_A_JOB,
    ("retry_job", 202): FROM_A_JOB,
    ("cancel_jobs", 202): FROM_A_JOB,
    ("requeue_jobs", 202): FROM_A_JOB,
    ("create_jobs", 202): to_job("$response.body#/ids/0"),
    ("list_jobs", 200): (
        *to_job("$response.body#/items/0/id"),
        Link(
            name="next",
            to="list_jobs",
            says="The next page; repeat the filters and the order",
            parameters={"cursor": "$response.body#/next"},
        ),
    ),
    ("list_events", 200): (
        *to_job("$request.path.job_id"),
        Link(
            name="next",
            to="list_events",
            says="The next page",
            parameters={**OF_THE_PATH, "after_version": "$response.body#/next"},
        ),
    ),
    ("list_log", 200): (
        *to_job("$response.body#/items/0/job_id"),
        Link(
            name="next",
            to="list_log",
            says="The next page; repeat the filters",
            parameters={"after": "$response.body#/next"},
        ),
    ),
    ("list_artifacts", 200): (
        Link(
            name="content",
            to="get_artifact",
            says="The first file",
            parameters={**OF_THE_PATH, "name": "$response.body#/items/0/name"},
        ),
    ),
    ("claim_jobs", 200): (
        *to_job("$response.body#/jobs/0/id"),
        Link(
            name="report",
            to="report",
            says="Report on the first of the claimed jobs",
            body={
                "worker": "$request.body#/worker",
                "reports": [{"job_id": "$response.body#/jobs/0/id", "attempt": "$response.body#/jobs/0/attempt"}],
            },
        ),
    ),
    ("report", 200): (
        *to_job("$request.body#/reports/0/job_id"),
        Link(
            name="report",
            to="report",
            says="The next report on the same job",
            body={
                "worker": "$request.body#/worker",
                "reports": [
                    {"job_id": "$request.body#/reports/0/job_id", "attempt": "$request.body#/reports/0/attempt"}
                ],
            },
        ),
    ),
    ("create_visualization", 202): (
        *FROM_A_JOB,
        Link(name="visualization", to="get_visualization", says="What is recorded so far", parameters=THE_JOB),
        Link(name="page", to="get_visualization_page", says="The page, once it is there", parameters=THE_JOB),
    ),
    ("create_presentation", 202): (
        *FROM_A_JOB,
        Link(name="presentation", to="get_presentation", says="What is drawn so far", parameters=THE_JOB),
        Link(name="video", to="get_presentation_video", says="The video, once it is there", parameters=THE_JOB),
    ),
    ("get_presentation", 200): (
        Link(name="video", to="get_presentation_video", says="The video, once it is there", parameters=THE_JOB),
        Link(name="thumbnail", to="get_presentation_thumbnail", says="A small picture of it", parameters=THE_JOB),
        Link(
            name="slide",
            to="get_presentation_slide",
            says="The image of the first slide, once it is drawn",
            parameters={**THE_JOB, "n": "1"},
        ),
    ),
    ("get_visualization", 200): (
        Link(name="page", to="get_visualization_page", says="The page, once it is there", parameters=THE_JOB),
    ),
}


def links(operation: str, status: int) -> Json:
    """The links of an answer, as OpenAPI's Link Objects by name."""
    return {link.name: link.described() for link in LINKS.get((operation, status), ())}
