"""Elai (elai.io), a studio whose avatars speak the notes of slides.

Written against its published reference, https://elai.readme.io/reference: `create-video`, `slide-structure`,
`update-video` (what a video is), `webhooks-overview` (what a ready one has), `errors`; and `render-video`,
`retrieve-video`, `list-videos` and `delete-video` as the clients of others use them.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import av
import httpx2
import msgspec
from msgspec import Struct

from application.artifacts import LARGEST_FILE
from application.presentation import Presentation, Renderer, Slide, Theme
from application.studio import (
    Fetched,
    Film,
    ReportProgress,
    State,
    StudioBusy,
    StudioLost,
    StudioRefused,
)
from infrastructure.retry_after import retry_after

Json = dict[str, Any]
BASE_URL = "https://apis.elai.io/api/v1"
ANSWER_SECONDS = 60.0
"""For a whole answer of the API."""
SILENCE_SECONDS = 60.0
"""Between two pieces of a file."""
LISTED, PAGES = 100, 20
"""How far back an order is looked for."""
STILL = (640, 640)
"""The box that a thumbnail of ours fits in."""
LARGEST_THUMBNAIL = 20 * 1024 * 1024
THUMBNAILS = {"image/jpeg": "thumbnail.jpg", "image/png": "thumbnail.png", "image/webp": "thumbnail.webp"}
STATES: dict[str, State] = {
    "draft": "draft",
    "queued": "queued",
    "ready": "ready",
    "error": "failed",
    "failed": "failed",
}
"""Any other status (validating, moderation, rendering …) is on the way to one of these."""
GONE = 404
AVATAR = "gia.casual"
AVATAR_IMAGE = "https://elai-avatars.s3.us-east-2.amazonaws.com/common/gia/casual/gia_casual.png"
VOICE = "en-US-AriaNeural"
COLOURS: dict[Theme, tuple[str, str]] = {
    "light": ("#ffffff", "#1b1f24"),
    "dark": ("#14171c", "#f2f4f7"),
    "paper": ("#f6f0e4", "#33291d"),
}
"""Of the background and the text, by theme."""


class _Video(Struct):
    """What Elai says of a video; `tags` and `url` are not everywhere."""

    id: str = msgspec.field(name="_id")
    name: str = ""
    status: str = ""
    tags: list[str] | None = None
    deleted: bool = False
    url: str | None = None
    thumbnail: str | None = None
    error: Any = None


class _Videos(Struct):
    videos: list[_Video]


_Listed: TypeAlias = _Videos | list[_Video]


class Elai:
    """See the port, `application.studio.Studio`. Raises ValueError for a key no HTTP header could carry.

    Owns its connections: `aclose` ends them.
    """

    renderer: Renderer = "elai"

    def __init__(self, api_key: str, base_url: str | None, answer_seconds: float = ANSWER_SECONDS) -> None:
        if not re.fullmatch(r"[!-~]+", api_key):
            raise ValueError("ELAI_API_KEY is empty or has characters that no key has")
        self._key = api_key
        self._answer_seconds = answer_seconds
        headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        self._api = httpx2.AsyncClient(base_url=base_url or BASE_URL, headers=headers, timeout=answer_seconds)
        timeout = httpx2.Timeout(10.0, read=SILENCE_SECONDS)
        self._files = httpx2.AsyncClient(timeout=timeout, follow_redirects=True)  # elsewhere: the key stays here

    async def aclose(self) -> None:
        await self._api.aclose()
        await self._files.aclose()

    async def find(self, key: str) -> str | None:
        """A page of its list at a time: by tag, or by name where the list has no tags."""
        for page in range(1, PAGES + 1):
            found: _Listed = await self._ask(_Listed, "GET", "/videos", params={"page": page, "limit": LISTED})
            videos = found.videos if isinstance(found, _Videos) else found
            for video in videos:
                if _is(video, key) and not video.deleted and _state(video) != "failed":
                    return video.id
            if len(videos) < LISTED:
                return None
        return None

    async def create(self, deck: Presentation, key: str) -> str:
        body = {
            "name": _name(deck.title, key),
            "tags": ["jobledger", key],
            "data": {"format": "16_9", **({"resolution": "FullHD"} if deck.size == "1080p" else {})},
            "slides": [_slide(number, slide, deck.theme) for number, slide in enumerate(deck.slides, 1)],
        }
        video: _Video = await self._ask(_Video, "POST", "/videos", json=body, headers={"Idempotency-Key": key})
        return video.id

    async def render(self, id: str, key: str) -> None:
        await self._ask(Any, "POST", f"/videos/render/{id}", headers={"Idempotency-Key": key}, lost=id)

    async def look(self, id: str) -> Film:
        video: _Video = await self._ask(_Video, "GET", f"/videos/{id}", lost=id)
        if video.deleted:
            raise _lost(id)
        return Film(
            id=id, state=_state(video), url=video.url, thumbnail_url=video.thumbnail, reason=self._reason(video.error)
        )

    async def delete(self, id: str) -> None:
        try:
            await self._ask(Any, "DELETE", f"/videos/{id}", lost=id)
        except StudioLost:
            return

    async def fetch(self, film: Film, folder: Path, progress: ReportProgress) -> Fetched:
        assert film.url is not None
        video = folder / "video"
        await self._download(film.url, video, LARGEST_FILE, progress)
        try:
            duration, width, height = await asyncio.to_thread(_seen, video, folder / "still.jpg")
        except (av.FFmpegError, IndexError) as error:
            raise StudioRefused(f"what Elai delivered as video {film.id} cannot be read as one: {error}") from error
        thumbnail, media_type = await self._thumbnail(film, folder)
        return Fetched(
            video=video,
            thumbnail=thumbnail,
            thumbnail_type=media_type,
            duration=duration,
            width=width,
            height=height,
        )

    async def _thumbnail(self, film: Film, folder: Path) -> tuple[Path, str]:
        """Elai's, or where it gives out none that browsers show, the still of the video."""
        given = folder / "thumbnail"
        if film.thumbnail_url is not None:
            try:
                media_type = await self._download(film.thumbnail_url, given, LARGEST_THUMBNAIL)
            except (StudioRefused, StudioBusy):
                media_type = ""
            if media_type in THUMBNAILS:
                return given.rename(folder / THUMBNAILS[media_type]), media_type
        return (folder / "still.jpg").rename(folder / THUMBNAILS["image/jpeg"]), "image/jpeg"

    async def _download(self, url: str, to: Path, most: int, progress: ReportProgress | None = None) -> str:
        """The content of a URL into a file, a piece at a time; its media type."""
        if not url.startswith(("https://", "http://")):
            raise StudioRefused(f"Elai names a file at {url[:100]!r}, which is no address on the web")
        async with self._in_our_words(), self._files.stream("GET", url) as response:
            if not response.is_success:
                raise StudioBusy(
                    f"a link that Elai gave does not work now ({response.status_code})", retry_after(response)
                )
            size = int(response.headers.get("content-length") or 0)
            done = 0
            with await asyncio.to_thread(to.open, "wb") as file:
                async for piece in response.aiter_bytes(1024 * 1024):
                    done += len(piece)
                    if done > most:
                        raise StudioRefused(f"a file that Elai names has more than {most} bytes")
                    await asyncio.to_thread(file.write, piece)
                    if progress is not None and size:
                        await progress(done / size)
        return response.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def _ask(self, answer: Any, method: str, path: str, *, lost: str | None = None, **request: Any) -> Any:
        """The API's answer. `lost` is the video whose absence a 404 tells."""
        async with self._in_our_words(), asyncio.timeout(self._answer_seconds):
            response = await self._api.request(method, path, **request)
        if response.status_code == GONE and lost is not None:
            raise _lost(lost)
        self._check(response, self._said(response))
        try:
            return msgspec.json.decode(response.content or b"null", type=answer)
        except msgspec.MsgspecError:
            raise StudioBusy("the answer is not Elai's; if it stays so, check ELAI_BASE_URL") from None

    @asynccontextmanager
    async def _in_our_words(self) -> AsyncIterator[None]:
        try:
            yield
        except TimeoutError:
            raise StudioBusy("Elai took too long to answer") from None
        except httpx2.TransportError:
            raise StudioBusy("Elai cannot be reached, or hung up") from None
        except httpx2.TooManyRedirects:
            raise StudioBusy("Elai sends us round in circles") from None

    def _check(self, response: httpx2.Response, said: str) -> None:
        """Raises what a status means that is no success."""
        status = response.status_code
        if response.is_success:
            return
        if status in (408, 425, 429) or status >= 500:
            raise StudioBusy(f"Elai is busy ({status}){said}", retry_after(response))
        if status in (401, 403):
            raise StudioRefused(f"Elai refused the key ({status}): check ELAI_API_KEY{said}")
        if status == 402:
            raise StudioRefused(f"the account of ELAI_API_KEY has not enough minutes left{said}")
        if status == GONE or response.is_redirect:
            raise StudioRefused(f"Elai has nothing at this address ({status}): check ELAI_BASE_URL{said}")
        raise StudioRefused(f"Elai refused the request ({status}){said}")

    def _said(self, response: httpx2.Response) -> str:
        try:
            body = msgspec.json.decode(response.content)
        except msgspec.MsgspecError:
            return ""
        reason = self._reason(body.get("message")) if isinstance(body, dict) else None
        return f": {reason}" if reason else ""

    def _reason(self, error: Any) -> str | None:
        """An error as Elai words it, without the key."""
        if isinstance(error, dict):
            error = error.get("message")
        return error.replace(self._key, "…")[:300] if isinstance(error, str) and error else None


def _lost(id: str) -> StudioLost:
    return StudioLost(f"video {id} is no longer there at Elai")


def _state(video: _Video) -> State:
    if video.status == "draft" and video.error:
        return "failed"
    if video.status == "ready" and not video.url:
        return "rendering"
    return STATES.get(video.status, "rendering")


def _is(video: _Video, key: str) -> bool:
    return key in video.tags if video.tags else video.name.endswith(_mark(key))


def _name(title: str, key: str) -> str:
    """The deck's title, marked with the job's id, so that people find one from the other."""
    return title + _mark(key)


def _mark(key: str) -> str:
    return f" ({key.partition(':')[0]})"


def _slide(number: int, slide: Slide, theme: Theme) -> Json:
    """A slide in Elai's structure, whose canvas has 640 by 360: text at the left, and the avatar beside it."""
    background, ink = COLOURS[theme]
    bullets = "\n".join(f"• {bullet}" for bullet in slide.bullets)
    objects = [_text(slide.title, 28, 24, 24, ink), *([_text(bullets, 16, 24, 96, ink)] if bullets else []), _avatar()]
    return {
        "id": number,
        "status": "edited",
        "canvas": {"objects": objects, "background": background, "version": "4.4.0"},
        "avatar": {"code": AVATAR, "gender": "female", "canvas": AVATAR_IMAGE},
        "animation": "fade_in",
        "language": "English",
        "speech": slide.notes.strip() or ". ".join([slide.title, *slide.bullets]),
        "voice": VOICE,
        "voiceType": "text",
        "voiceProvider": "azure",
    }


def _text(text: str, size: int, left: int, top: int, ink: str) -> Json:
    return {
        "type": "textbox",
        "version": "4.4.0",
        "text": text,
        "fontSize": size,
        "fill": ink,
        "left": left,
        "top": top,
        "width": 380,
    }


def _avatar() -> Json:
    return {
        "type": "avatar",
        "left": 400,
        "top": 100,
        "fill": "#4868FF",
        "scaleX": 0.24,
        "scaleY": 0.24,
        "width": 1080,
        "height": 1080,
        "src": AVATAR_IMAGE,
        "avatarType": "transparent",
        "animation": {"type": None, "exitType": None},
    }


def _seen(video: Path, still: Path) -> tuple[float, int, int]:
    """Duration in seconds, width and height of a video; its first whole picture becomes `still`."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream), None)
        if frame is None:
            raise IndexError("it has no picture")
        picture = frame.to_image().convert("RGB")  # type: ignore[no-untyped-call]
        picture.thumbnail(STILL)
        picture.save(still, quality=90)
        duration = (container.duration or 0) / av.time_base
    return duration, frame.width, frame.height
