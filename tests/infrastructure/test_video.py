"""Slides become a video that decodes to what was drawn, seeks, and is begun where a killed attempt left off."""

import io
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import av
import msgspec
import pytest
from PIL import Image, ImageChops, ImageStat

from application.handlers import GiveUp
from application.presentation import Presentation, Slide, Video
from infrastructure.video import rendering
from infrastructure.video.captions import LONGEST, captions
from infrastructure.video.local import render
from infrastructure.video.work import work_folder
from tests.infrastructure.video_jobs import Killed, RecordedJob

DECK = Presentation(
    "Three slides",
    [
        Slide("The first", seconds=2.5, notes="It begins. And it goes on {in braces}."),
        Slide("The second", ["red", "green"], seconds=3.3),
        Slide("The third", ["a bullet " * 400], seconds=12, notes="Überraschung — 日本語。"),
    ],
    size="720p",
    theme="dark",
)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work folders are made here."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path / f"jobledger-video-{os.getuid()}"


@pytest.fixture(scope="module")
def made() -> tuple[RecordedJob, Video]:
    job = RecordedJob()
    return job, render(job, DECK)


def opened(job: RecordedJob) -> av.container.InputContainer:
    container = av.open(io.BytesIO(job.files["video.mp4"]))
    assert isinstance(container, av.container.InputContainer)
    return container


def shown_at(job: RecordedJob, second: float) -> Image.Image:
    """The frame that a player shows which seeks to that moment."""
    with opened(job) as container:
        stream = container.streams.video[0]
        assert stream.time_base is not None
        container.seek(int(second / stream.time_base), stream=stream)
        before = [frame for frame in container.decode(stream) if frame.time is not None and frame.time <= second]
        image: Image.Image = before[-1].to_image()  # type: ignore[no-untyped-call]
        return image


def differs(one: Image.Image, other: Image.Image) -> float:
    """The part of the pixels that are not the same to the eye, 0..1."""
    far = ImageChops.difference(one, other).convert("L").point(lambda level: 255 * (level > 50))
    return ImageStat.Stat(far).mean[0] / 255


def image(job: RecordedJob, name: str) -> Image.Image:
    return Image.open(io.BytesIO(job.files[name])).convert("RGB")


def test_video_decodes_to_its_length_and_size(made: tuple[RecordedJob, Video]) -> None:
    job, video = made
    with opened(job) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (video.width, video.height) == (1280, 720)
        assert container.duration is not None
        assert container.duration / 1e6 == pytest.approx(17.8, rel=0.02)
        assert container.metadata["title"] == "Three slides"
    assert video.duration == pytest.approx(17.8, rel=0.001)
    assert len(frames) == stream.frames == 5 + 6 + sum(t // 500 for t in third(job).ticks)
    assert [frame.time for frame in frames] == sorted({frame.time for frame in frames})


def third(job: RecordedJob) -> rendering.DrawnSlide:
    return msgspec.json.decode(job.steps["slide-003"], type=rendering.DrawnSlide)


@pytest.mark.parametrize(
    ("second", "name"),
    [
        (0.0, "slide-001.png"),
        (2.4, "slide-001.png"),
        (2.6, "slide-002.png"),
        (5.7, "slide-002.png"),
        (5.9, "slide-003.png"),
        (17.7, "slide-003-2.png"),
    ],
)
def test_a_player_that_seeks_sees_the_slide_of_that_moment(
    made: tuple[RecordedJob, Video], second: float, name: str
) -> None:
    job, _ = made
    frame = shown_at(job, second)
    others = [other for other in job.files if other.startswith("slide-") and other != name]
    assert differs(frame, image(job, name)) < 0.001
    assert min(differs(frame, image(job, other)) for other in others) > 0.01


def test_video_begins_with_its_index(made: tuple[RecordedJob, Video]) -> None:
    content = made[0].files["video.mp4"]
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_a_keyframe_is_never_far(made: tuple[RecordedJob, Video]) -> None:
    with opened(made[0]) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    starts = [float(p.pts * p.time_base) for p in packets if p.is_keyframe and p.pts is not None and p.time_base]
    assert {0.0, 2.5, 5.8} <= {round(start, 3) for start in starts}
    assert max(b - a for a, b in zip(starts, [*starts[1:], 17.8], strict=True)) <= 10.5


def test_notes_are_its_captions(made: tuple[RecordedJob, Video]) -> None:
    with opened(made[0]) as container:
        stream = container.streams.subtitles[0]
        spoken = [packet for packet in container.demux(stream) if packet.size > 2]
        starts = [float((packet.pts or 0) * packet.time_base) for packet in spoken]
        ends = [float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base) for packet in spoken]
    texts = [bytes(packet)[2:].decode() for packet in spoken]
    assert texts == ["It begins.", "And it goes on {in braces}.", "Überraschung — 日本語。"]
    assert starts == pytest.approx([0.0, 0.675, 5.8], abs=0.01)
    assert ends == pytest.approx([0.675, 2.5, 17.8], abs=0.01)


def test_deck_without_notes_has_no_captions() -> None:
    job = RecordedJob()
    render(job, Presentation("Silent", [Slide("One", seconds=0.5)], size="720p"))
    with opened(job) as container:
        assert [stream.type for stream in container.streams] == ["video"]
        assert container.duration == 500_000


def test_thumbnail_is_a_small_picture_of_the_first_slide(made: tuple[RecordedJob, Video]) -> None:
    job, video = made
    small = image(job, video.thumbnail.name)
    assert small.size == (640, 360)
    assert differs(small, image(job, "slide-001.png").resize((640, 360))) < 0.01


def test_there_is_an_image_of_each_slide(made: tuple[RecordedJob, Video]) -> None:
    job, video = made
    assert [slide.image.name for slide in video.slides] == ["slide-001.png", "slide-002.png", "slide-003.png"]
    assert [file.name for file in video.slides[2].continued] == ["slide-003-2.png"]
    assert all(image(job, name).size == (1280, 720) for name in job.files if name.endswith(".png"))


def test_progress_rises_with_slides_and_encoded_seconds(made: tuple[RecordedJob, Video]) -> None:
    fractions = [fraction for fraction, _ in made[0].said]
    assert fractions == sorted(fractions)
    assert fractions[-1] == pytest.approx(1.0)
    messages = {message for _, message in made[0].said}
    assert {f"slide 3 of 3: {second} of 12 s encoded" for second in range(12)} <= messages


def test_nothing_is_left_of_the_work(temporary: Path) -> None:
    render(RecordedJob(), Presentation("Short", [Slide("One", seconds=0.5)], size="720p"))
    assert list(temporary.iterdir()) == []


def test_attempt_after_a_kill_draws_only_what_is_left() -> None:
    job = RecordedJob()
    job.killed_at = lambda message: message == "slide 2 of 3: drawn"
    with pytest.raises(Killed):
        render(job, DECK)
    job.killed_at = lambda message: False
    render(job, DECK)
    assert job.drawn() == [1, 2, 2, 3, 3]  # the second was under way; the third has two images


def test_attempt_after_a_kill_while_encoding_draws_nothing_again(made: tuple[RecordedJob, Video]) -> None:
    job = RecordedJob()
    job.killed_at = lambda message: message.startswith("slide 3 of 3: 6 of")
    with pytest.raises(Killed):
        render(job, DECK)
    encoded = job.files["segment-001.mp4"], job.files["segment-002.mp4"]
    job.killed_at = lambda message: False
    again = render(job, DECK)
    assert job.drawn() == [1, 2, 3, 3]
    assert (job.files["segment-001.mp4"], job.files["segment-002.mp4"]) == encoded
    assert again == made[1]  # to the byte, as if nothing had happened


def test_attempt_after_a_kill_while_joining_encodes_nothing_again() -> None:
    job = RecordedJob()
    job.killed_at = lambda message: message == "joining the slides"
    with pytest.raises(Killed):
        render(job, DECK)
    said = len(job.said)
    job.killed_at = lambda message: False
    render(job, DECK)
    assert {message for _, message in job.said[said:]} == {"joining the slides"}


def test_segment_of_another_encoder_fails_the_job_for_good_and_says_what_to_do() -> None:
    job = RecordedJob()
    job.killed_at = lambda message: message == "joining the slides"
    with pytest.raises(Killed):
        render(job, DECK)
    other = RecordedJob()
    render(other, msgspec.structs.replace(DECK, size="1080p"))
    foreign = other.save_artifact("segment-002.mp4", other.files["segment-002.mp4"], "video/mp4")
    job.files["segment-002.mp4"] = other.files["segment-002.mp4"]
    job.steps["segment-002"] = msgspec.json.encode(foreign)
    job.killed_at = lambda message: False
    with pytest.raises(GiveUp, match=r"segment-002\.mp4 was encoded in another way .* retry the job afresh"):
        render(job, DECK)


def test_work_of_a_killed_process_is_removed_and_that_of_a_living_one_is_not(temporary: Path) -> None:
    program = (
        f"import sys, tempfile; sys.path.insert(0, {str(ROOT)!r}); tempfile.tempdir = {str(temporary.parent)!r}\n"
        "from infrastructure.video.work import work_folder\n"
        "with work_folder() as folder:\n"
        "    print(folder, flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout
        theirs = Path(other.stdout.readline().strip())
        with work_folder() as ours:
            assert {theirs, ours} == set(temporary.iterdir())
        other.kill()
    assert theirs.exists()
    with work_folder() as ours:
        assert [ours] == list(temporary.iterdir())


def test_folder_that_is_somebody_elses_is_not_touched(temporary: Path) -> None:
    (temporary.parent / "precious" / "work-1").mkdir(parents=True)
    temporary.symlink_to(temporary.parent / "precious")
    with pytest.raises(PermissionError, match="is not ours"), work_folder():
        pass
    assert (temporary.parent / "precious" / "work-1").exists()


def test_long_sentences_are_captions_of_two_lines_at_most() -> None:
    said = captions("word " * 100 + ". " + "x" * 200, 1000, 60_000)
    assert all(0 < len(caption.text) <= LONGEST for caption in said)
    assert "".join(caption.text for caption in said).replace(" ", "") == "word" * 100 + "." + "x" * 200
    assert (said[0].start, said[-1].end) == (1000, 61_000)
    assert all(one.end == other.start for one, other in pairwise(said))


def test_no_notes_are_no_captions() -> None:
    assert captions(" \x00\n", 0, 1000) == []
