"""The contract: every call that clients may make, what it takes, and what it answers."""

from application.audit import Consistency, Inclusion
from application.bulk import Counted
from application.claims import Claim
from application.differences import Diff
from application.jobs import ArtifactView, JobView, NewJob
from application.keys import CreatedKey, Key, NewKey
from application.language import Question
from application.operations import PauseView, ProjectionView, StatsView
from application.presentation import Presentation
from application.readiness import Ready
from application.why import Why
from interfaces.http.artifacts import ArtifactPage, UploadQuery
from interfaces.http.audit import (
    AccessPage,
    AccessQuery,
    ArchivePage,
    ArchivesQuery,
    Bundle,
    ConsistencyQuery,
    PositionQuery,
    SealingKeyPage,
    VersionQuery,
)
from interfaces.http.bulk import BulkCancellation, BulkRequeue
from interfaces.http.events import CloudEventPage, LogPage, LogQuery
from interfaces.http.health import Live
from interfaces.http.jobs import (
    Cancellation,
    CreatedJobs,
    DiffQuery,
    EventPage,
    EventsQuery,
    JobPage,
    JobsQuery,
    MomentQuery,
    NewJobs,
    RetryRequest,
)
from interfaces.http.keys import KeyPage
from interfaces.http.older_pollers import OlderError, OlderPresentation, OlderVisualization
from interfaces.http.operation import ID, Answer, Operation, content_of
from interfaces.http.operations import (
    Because,
    FailurePage,
    FailuresQuery,
    NamesQuery,
    ProjectionPage,
    QueuePage,
    Resumption,
    StatsQuery,
    UsagePage,
    UsageQuery,
    WorkerPage,
    WorkersQuery,
)
from interfaces.http.presentations import PresentationView
from interfaces.http.signed_links import LinkQuery
from interfaces.http.streams import NDJSON, SSE
from interfaces.http.visualizations import VisualizationView
from interfaces.http.workers import ClaimedJobs, ReportResults, ReportsRequest

STREAMS = (NDJSON, SSE)
READS = ("not-found", "unavailable", "internal")
WRITES = ("too-large", "unsupported-media-type", "unavailable", "internal")
ACCEPTED = Answer(202, "The job", JobView, headers=("ETag", "Location", "Idempotency-Replayed"))
BY_A_JOB = (
    "`filter` has the fields of the list of jobs, at least one. Jobs in states that cannot be moved so are left out. "
    "A dry run counts up to 10 000 jobs. Else a job of kind `bulk` moves those that were there before it, with "
    "progress; its result is `{matched, changed, refused: {code: count}}`, and it can be cancelled like any other."
)
OLDER_POLLERS = "older pollers"
"""The tag of the calls that may be switched off."""
OLDER = (
    "JOBLEDGER_OLDER_POLLERS=off removes this call; new front ends use /v1. A cancelled job has failed, one that is "
    "being cancelled is processing, and `success` is true for every job that is known. Query parameters are ignored."
)
OLDER_REFUSALS = (
    Answer(404, "There is no such job of this kind", OlderError),
    Answer(410, "Jobs of that time are in an archive by now", OlderError),
    Answer(503, "The database has been away for some seconds", OlderError, headers=("Retry-After",)),
)


def _file(*, path: str, id: str, summary: str, tag: str, media_type: str, description: str = "") -> Operation:
    """A file's content, whole or in part, for who may see it or has its signed link."""
    return Operation(
        method="get",
        path=path,
        id=id,
        summary=summary,
        description=description,
        tag=tag,
        query=LinkQuery,
        request_headers=("Range", "If-Range", "If-None-Match"),
        answers=content_of(media_type),
        problems=(*READS, "range-not-satisfiable"),
    )


OPERATIONS = (
    Operation(
        method="post",
        path="/v1/jobs",
        id="create_job",
        summary="Create a job",
        tag="jobs",
        body=NewJob,
        example={"kind": "visualization", "input": {"question": "What is 15 % of 80?"}},
        request_headers=("Idempotency-Key",),
        answers=(ACCEPTED,),
        problems=(*WRITES, "idempotency-mismatch"),
    ),
    Operation(
        method="post",
        path="/v1/jobs/batch",
        id="create_jobs",
        summary="Create many jobs, all or none",
        tag="jobs",
        body=NewJobs,
        example={"jobs": [{"kind": "resize", "input": {"image": 1}}, {"kind": "resize", "input": {"image": 2}}]},
        request_headers=("Idempotency-Key",),
        answers=(Answer(202, "The new jobs' ids", CreatedJobs, headers=("Idempotency-Replayed",)),),
        problems=(*WRITES, "idempotency-mismatch"),
    ),
    Operation(
        method="get",
        path="/v1/jobs",
        id="list_jobs",
        summary="List jobs",
        tag="jobs",
        query=JobsQuery,
        answers=(Answer(200, "A page of jobs", JobPage, headers=("Link",)),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/jobs/{job_id}",
        id="get_job",
        summary="A job as it is, or was at a version or a moment",
        tag="jobs",
        query=MomentQuery,
        request_headers=("If-None-Match", "Prefer"),
        answers=(
            Answer(200, "The job", JobView, headers=("ETag", "Preference-Applied")),
            Answer(304, "The job is still at that version", headers=("ETag",)),
        ),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/jobs/{job_id}/events",
        id="list_events",
        summary="A job's history",
        tag="jobs",
        query=EventsQuery,
        request_headers=("Last-Event-ID",),
        answers=(
            Answer(200, "Events: a page, or a stream as Accept asks", EventPage, also=STREAMS),
            Answer(204, "The job has finished, and there is nothing after Last-Event-ID"),
        ),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/jobs/{job_id}/diff",
        id="diff_job",
        summary="What changed between two versions of a job",
        tag="jobs",
        query=DiffQuery,
        answers=(Answer(200, "The changes and the events that made them", Diff),),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/jobs/{job_id}/why",
        id="why_job",
        summary="Why a job is where it is",
        tag="jobs",
        answers=(Answer(200, "The reasons, the most telling first", Why),),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/events",
        id="list_log",
        summary="The whole log, in order",
        description="Whoever takes it as lines (`application/x-ndjson`) is recorded. Months that left the log are "
        "passed over: where some have events after `after`, the header Link leads to their archives.",
        tag="audit",
        query=LogQuery,
        request_headers=("Last-Event-ID",),
        answers=(
            Answer(
                200,
                "Events: a page, or a stream as Accept asks",
                LogPage,
                CloudEventPage,
                also=STREAMS,
                headers=("Link",),
            ),
        ),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/audit/checkpoint",
        id="get_checkpoint",
        summary="The latest signed checkpoint of the sealed log",
        description="A C2SP checkpoint in a signed note: origin, number of events, root of the tree, signatures.",
        tag="audit",
        answers=(Answer(200, "The checkpoint", media_type="text/plain", headers=("Cache-Control",)),),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/audit/tiles/{level}/{tile}",
        id="get_tile",
        summary="A tile of the Merkle tree",
        description="C2SP tlog-tiles, also below `/v1/audit/tile/`, so that `/v1/audit` is the prefix of a tiled log. "
        "`tile` is the index in groups of three digits, such as `x001/x234/067`; with `.p/5` after it, the tile as it "
        "was when it had 5 hashes. Level `entries` has the events' hashes themselves.",
        tag="audit",
        answers=(Answer(200, "The hashes", media_type="application/octet-stream", headers=("Cache-Control",)),),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/audit/consistency",
        id="get_consistency",
        summary="The proof that the log of one size is how that of another began",
        tag="audit",
        query=ConsistencyQuery,
        answers=(Answer(200, "The proof (RFC 6962)", Consistency),),
        problems=READS,
    ),
    Operation(
        method="get",
        path="/v1/audit/inclusion",
        id="get_inclusion",
        summary="The proof that an event is in the sealed log",
        description="An event is sealed seconds after it is recorded.",
        tag="audit",
        query=PositionQuery,
        request_headers=("Prefer",),
        answers=(Answer(200, "The proof (RFC 6962)", Inclusion),),
        problems=(*READS, "conflict"),
    ),
    Operation(
        method="get",
        path="/v1/audit/jobs/{job_id}/inclusion",
        id="get_inclusion_in_job",
        summary="The proof that a job's event, and with it all before it, is in the sealed log",
        tag="audit",
        query=VersionQuery,
        request_headers=("Prefer",),
        answers=(Answer(200, "The proof (RFC 6962)", Inclusion),),
        problems=(*READS, "conflict"),
    ),
    Operation(
        method="get",
        path="/v1/audit/keys",
        id="list_sealing_keys",
        summary="The public keys of the seal, and when each signed",
        tag="audit",
        answers=(Answer(200, "The keys", SealingKeyPage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/audit/archives",
        id="list_archives",
        summary="The months that left the log, and the files that have them",
        description="Jobs of these months are answered `gone`; `jobledger retention` brings them back.",
        tag="audit",
        query=ArchivesQuery,
        answers=(Answer(200, "The archives", ArchivePage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/audit/jobs/{job_id}/bundle",
        id="get_bundle",
        summary="A job in one file, which proves itself",
        description="What is sealed of the job's events, as stored, with the proof of the last one, the checkpoint and "
        "the keys; `jobledger verify` checks it offline. Whoever downloads it is recorded.",
        tag="audit",
        request_headers=("Prefer",),
        answers=(Answer(200, "The bundle", Bundle, headers=("Content-Disposition",)),),
        problems=(*READS, "conflict"),
    ),
    Operation(
        method="get",
        path="/v1/audit/accesses",
        id="list_accesses",
        summary="Who exported events or downloaded bundles",
        tag="audit",
        query=AccessQuery,
        answers=(Answer(200, "A page of accesses, the latest first", AccessPage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="post",
        path="/v1/jobs/{job_id}/cancellations",
        id="cancel_job",
        summary="Cancel a job: at once when it is queued, by its worker when it runs",
        tag="jobs",
        body=Cancellation,
        example={"reason": "no longer needed"},
        request_headers=("If-Match",),
        answers=(ACCEPTED,),
        problems=(*WRITES, "not-found", "job-finished", "precondition-failed"),
    ),
    Operation(
        method="post",
        path="/v1/jobs/{job_id}/retries",
        id="retry_job",
        summary="Send a finished job round again",
        tag="jobs",
        body=RetryRequest,
        example={"reason": "the renderer is mended"},
        request_headers=("If-Match", "Idempotency-Key"),
        answers=(ACCEPTED,),
        problems=(*WRITES, "not-found", "conflict", "precondition-failed", "idempotency-mismatch"),
    ),
    Operation(
        method="post",
        path="/v1/jobs/cancellations",
        id="cancel_jobs",
        summary="Count the queued and running jobs that a filter matches, or cancel them by a job",
        description=BY_A_JOB,
        tag="operations",
        body=BulkCancellation,
        example={"filter": {"kind": ["resize"], "status": ["queued"]}, "reason": "sent twice", "dry_run": False},
        request_headers=("Idempotency-Key",),
        answers=(Answer(200, "How many jobs there are, when `dry_run` is true", Counted), ACCEPTED),
        problems=(*WRITES, "idempotency-mismatch"),
    ),
    Operation(
        method="post",
        path="/v1/jobs/requeues",
        id="requeue_jobs",
        summary="Count the finished jobs that a filter matches, or requeue them by a job",
        description=BY_A_JOB,
        tag="operations",
        body=BulkRequeue,
        example={"filter": {"status": ["failed"]}, "reason": "the renderer is mended", "dry_run": False},
        request_headers=("Idempotency-Key",),
        answers=(Answer(200, "How many jobs there are, when `dry_run` is true", Counted), ACCEPTED),
        problems=(*WRITES, "idempotency-mismatch"),
    ),
    Operation(
        method="get",
        path="/v1/jobs/{job_id}/artifacts",
        id="list_artifacts",
        summary="The files a job made",
        tag="jobs",
        answers=(Answer(200, "The files", ArtifactPage),),
        problems=READS,
    ),
    _file(
        path="/v1/jobs/{job_id}/artifacts/{name}",
        id="get_artifact",
        summary="A file's content",
        description="The `url` of an artifact is this call with a signature, which makes it good for a day or two.",
        tag="jobs",
        media_type="*/*",
    ),
    Operation(
        method="post",
        path="/v1/claims",
        id="claim_jobs",
        summary="Claim queued jobs",
        tag="workers",
        body=Claim,
        example={"worker": "w1", "queues": ["default"], "max": 10, "wait": 20},
        answers=(Answer(200, "The claimed jobs, none when there is no work", ClaimedJobs),),
        problems=WRITES,
    ),
    Operation(
        method="post",
        path="/v1/reports",
        id="report",
        summary="Report on claimed jobs, each on its own merits",
        description="A report that cannot be read has its problem among the results, as one that is refused has, and "
        "holds no other up. A request none of whose reports can be read is refused.",
        tag="workers",
        body=ReportsRequest,
        example={
            "worker": "w1",
            "reports": [{"job_id": ID, "attempt": 1, "type": "completed", "result": {"answer": 42}}],
        },
        answers=(Answer(200, "An answer for each report, in order", ReportResults),),
        problems=WRITES,
    ),
    Operation(
        method="put",
        path="/v1/jobs/{job_id}/attempts/{attempt}/artifacts/{name}",
        id="put_artifact",
        summary="Upload a file for a claimed job",
        description="The body is the file, of up to 5 GiB. It is recorded once all of it is safely stored, or not at "
        "all; the same file again is answered as done, another one of that name takes its place. The upload keeps the "
        "lease alive by itself, and may be slow, but not pause for a minute. A name is never a path: it has no "
        "slashes, and is kept in Unicode's composed form.",
        tag="workers",
        query=UploadQuery,
        request_headers=("Content-Digest",),
        answers=(
            Answer(200, "The job had this very file before", ArtifactView, headers=("Location",)),
            Answer(201, "The file is stored and recorded", ArtifactView, headers=("Location",)),
        ),
        problems=(*WRITES, "not-found", "lease-lost", "job-finished"),
        file=True,
    ),
    Operation(
        method="post",
        path="/v1/visualizations",
        id="create_visualization",
        summary="Turn a question into a page",
        tag="visualizations",
        body=Question,
        example={"question": "A train travels 180 km in 2 hours. What is its average speed?"},
        request_headers=("Idempotency-Key",),
        answers=(ACCEPTED,),
        problems=(*WRITES, "idempotency-mismatch"),
        upload=True,
    ),
    Operation(
        method="get",
        path="/v1/visualizations/{job_id}",
        id="get_visualization",
        summary="A visualization, with what is recorded so far",
        tag="visualizations",
        answers=(Answer(200, "The visualization", VisualizationView, headers=("ETag",)),),
        problems=READS,
    ),
    _file(
        path="/v1/visualizations/{job_id}/html",
        id="get_visualization_page",
        summary="The page",
        tag="visualizations",
        media_type="text/html",
    ),
    Operation(
        method="post",
        path="/v1/presentations",
        id="create_presentation",
        summary="Turn slides into a video",
        description="A slide without `seconds` is shown for as long as its notes take to say or, without notes, its "
        "text to read. A text that is too long for one image goes on on further images of the same slide. Notes become "
        "the video's captions. The renderer `elai`, where the worker has a key for it, has an avatar speak them: "
        "each slide lasts as long as that takes, and there are no images of slides.",
        tag="presentations",
        body=Presentation,
        example={
            "title": "Event sourcing",
            "slides": [
                {"title": "Why a log?", "bullets": ["Facts do not change", "State is what they add up to"]},
                {"title": "Thank you", "notes": "Thank you for your time.", "seconds": 5},
            ],
            "theme": "dark",
            "size": "1080p",
            "renderer": "local",
        },
        request_headers=("Idempotency-Key",),
        answers=(ACCEPTED,),
        problems=(*WRITES, "idempotency-mismatch"),
    ),
    Operation(
        method="get",
        path="/v1/presentations/{job_id}",
        id="get_presentation",
        summary="A presentation, with the images that are drawn so far",
        tag="presentations",
        answers=(Answer(200, "The presentation", PresentationView, headers=("ETag",)),),
        problems=READS,
    ),
    _file(
        path="/v1/presentations/{job_id}/video",
        id="get_presentation_video",
        summary="The video",
        tag="presentations",
        media_type="video/mp4",
    ),
    _file(
        path="/v1/presentations/{job_id}/thumbnail",
        id="get_presentation_thumbnail",
        summary="A small picture of the video",
        tag="presentations",
        media_type="*/*",
    ),
    _file(
        path="/v1/presentations/{job_id}/slides/{n}",
        id="get_presentation_slide",
        summary="The image of a slide",
        tag="presentations",
        media_type="image/png",
    ),
    Operation(
        method="post",
        path="/v1/keys",
        id="create_key",
        summary="Make a key",
        tag="keys",
        description="The first key of a service is made on its own machine, with `jobledger keys create`: until then "
        "the service is open, on loopback only, and this is `forbidden`.",
        body=NewKey,
        example={"name": "shop", "role": "client", "namespace": "shop", "rate": 50, "in_flight": 1000},
        answers=(Answer(201, "The key, and its secret, which is shown this once", CreatedKey, headers=("Location",)),),
        problems=(*WRITES, "conflict"),
    ),
    Operation(
        method="get",
        path="/v1/keys",
        id="list_keys",
        summary="All keys, without their secrets",
        tag="keys",
        answers=(Answer(200, "The keys", KeyPage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="delete",
        path="/v1/keys/{key_id}",
        id="revoke_key",
        summary="Revoke a key, for good, on every server within two seconds",
        tag="keys",
        answers=(Answer(200, "The key", Key),),
        problems=(*READS, "conflict"),
    ),
    Operation(
        method="get",
        path="/presentations/{job_id}",
        id="poll_presentation",
        summary="A presentation, for the pollers of older front ends",
        description=OLDER,
        tag=OLDER_POLLERS,
        answers=(Answer(200, "How far it is", OlderPresentation), *OLDER_REFUSALS),
        problems=("internal",),
    ),
    Operation(
        method="get",
        path="/api/process/{job_id}",
        id="poll_visualization",
        summary="A visualization, for the pollers of older front ends",
        description=OLDER,
        tag=OLDER_POLLERS,
        answers=(Answer(200, "How far it is", OlderVisualization), *OLDER_REFUSALS),
        problems=("internal",),
    ),
    Operation(
        method="get",
        path="/v1/projections",
        id="list_projections",
        summary="How far each view is behind the log, and what is done about it",
        tag="operations",
        answers=(Answer(200, "All projections, by name", ProjectionPage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="post",
        path="/v1/projections/{name}/rebuilds",
        id="rebuild_projection",
        summary="Build a view anew from the first event on, while the old one serves",
        tag="operations",
        description="A projector builds it, compares it with a fresh fold, and puts it in the place of the old one; "
        "`rebuild` says how far that is. `jobs`, which is written with the events, is compared with its fold and "
        "mended where it differs, job by job; `verification` says how far that is.",
        body=Because,
        example={"reason": "a total is wrong"},
        answers=(Answer(202, "The projection", ProjectionView),),
        problems=(*READS, *WRITES, "conflict"),
    ),
    Operation(
        method="post",
        path="/v1/projections/{name}/verifications",
        id="verify_projection",
        summary="Compare a view with a fresh fold of all events",
        tag="operations",
        description="A projector does it; `verification` says how far that is and, in the end, what differs.",
        body=Because,
        example={"reason": "a total is wrong"},
        answers=(Answer(202, "The projection", ProjectionView),),
        problems=(*READS, *WRITES, "conflict"),
    ),
    Operation(
        method="post",
        path="/v1/projections/{name}/resumptions",
        id="resume_projection",
        summary="Let a parked projection go on",
        tag="operations",
        description="`retry` when what kept it from folding the event is mended; `skip` to leave the event out. Of a "
        "projection that is not parked it is a conflict.",
        body=Resumption,
        example={"action": "skip", "reason": "written by hand in an incident"},
        answers=(Answer(202, "The projection", ProjectionView),),
        problems=(*READS, *WRITES, "conflict"),
    ),
    Operation(
        method="get",
        path="/v1/queues",
        id="list_queues",
        summary="How many jobs wait and run in each queue, and which are paused",
        tag="operations",
        query=NamesQuery,
        answers=(Answer(200, "A page of queues, by name", QueuePage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="post",
        path="/v1/queues/{name}/pauses",
        id="pause_queue",
        summary="Have a queue give no claims",
        tag="operations",
        description="Every server goes by it within two seconds; what runs goes on. A queue that is paused already "
        "keeps its first pause. There need not be jobs in it yet.",
        body=Because,
        example={"reason": "the printer is out of paper"},
        answers=(Answer(201, "The pause", PauseView),),
        problems=WRITES,
    ),
    Operation(
        method="delete",
        path="/v1/queues/{name}/pauses",
        id="unpause_queue",
        summary="Have a queue give claims again",
        tag="operations",
        answers=(Answer(204, "It does"),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/workers",
        id="list_workers",
        summary="Who works, since when, on what, and how it went",
        tag="operations",
        description="Those heard of in the last `seen_within` seconds (a day), and those that hold jobs.",
        query=WorkersQuery,
        answers=(Answer(200, "A page of workers, by name", WorkerPage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/failures",
        id="list_failures",
        summary="What went wrong: failed attempts, those alike together, the last seen first",
        tag="operations",
        query=FailuresQuery,
        answers=(Answer(200, "A page of failures", FailurePage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/usage",
        id="get_usage",
        summary="What was used: run time, bytes of artifacts, tokens",
        tag="operations",
        description="Days are in UTC; without `from`, since the first of the month of `to`. `group` may repeat; "
        "without it, by day, kind and model.",
        query=UsageQuery,
        answers=(Answer(200, "Sums", UsagePage),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/v1/stats",
        id="get_stats",
        summary="What happened in a window, how long jobs waited and ran, and how many are in each status",
        tag="operations",
        description="The window is widened to whole minutes; without `from`, it is the hour before `to`. "
        "Percentiles are true to within 5 %.",
        query=StatsQuery,
        answers=(Answer(200, "The window", StatsView),),
        problems=("unavailable", "internal"),
    ),
    Operation(
        method="get",
        path="/livez",
        id="live",
        summary="Whether this process answers",
        tag="health",
        answers=(Answer(200, "It does", Live),),
    ),
    Operation(
        method="get",
        path="/metrics",
        id="get_metrics",
        summary="Metrics for Prometheus",
        tag="health",
        description="Counters come from the log and survive every restart, but for `jobledger_append_…`, which are of "
        "this process. With an operator's key, jobs are counted by namespace, queue and kind, those of its own "
        "namespace if it has one; what is of all namespaces together is for a key of all. Without a key, and with any "
        "other, states and ages say whether the service is well, and nothing is named or counted. Without any keys, "
        "all is told.",
        answers=(Answer(200, "Its text format", media_type="text/plain"),),
    ),
    Operation(
        method="get",
        path="/readyz",
        id="ready",
        summary="Whether this server can serve, and if not, why",
        tag="health",
        answers=(Answer(200, "It can", Ready), Answer(503, "It cannot", Ready)),
    ),
)
