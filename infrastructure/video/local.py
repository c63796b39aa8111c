"""The `local` renderer: presentations are drawn and encoded in a process of this machine."""

from application.handlers import PlainJobContext
from application.presentation import Presentation, Video


def render(job: PlainJobContext, deck: Presentation) -> Video:
    """Draw and encode slide after slide, then join them. What is on record is neither drawn nor encoded again."""
    # What draws and encodes takes half a second to load and 24 MB, which a worker that only names this can do without.
    from infrastructure.video.rendering import Rendering
    from infrastructure.video.work import work_folder

    with work_folder() as folder:
        return Rendering(job, deck, folder).video()
