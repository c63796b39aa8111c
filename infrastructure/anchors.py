"""Where checkpoints are anchored: a folder, or a bucket, whose object lock then keeps them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from application.anchoring import Signed
from application.errors import StoreUnavailable


class ObjectAnchor:
    """Names never change their content: `<origin>/<day>/<size in 20 digits>`."""

    def __init__(self, place: str) -> None:
        """`place` is a folder or a URL such as `s3://bucket/prefix`."""
        self._place = place
        self._made: ObjectStore | None = None

    def last(self, origin: str) -> int:
        with self._told() as store:
            days = obstore.list_with_delimiter(store, origin)["common_prefixes"]
            if not days:
                return 0
            names = [one["path"] for page in obstore.list(store, max(days), chunk_size=1000) for one in page]
            return max(int(name.rpartition("/")[2]) for name in names)

    def put(self, origin: str, checkpoint: Signed) -> None:
        path = f"{origin}/{checkpoint.signed_at:%Y-%m-%d}/{checkpoint.size:020d}"
        content = checkpoint.note.encode()
        with self._told() as store:
            try:
                obstore.put(store, path, content, mode="create", use_multipart=False)
            except AlreadyExistsError:
                if bytes(obstore.get(store, path).bytes()) != content:
                    raise StoreUnavailable(
                        f"another checkpoint of {checkpoint.size} events is anchored at {self._place}: the log was "
                        "restored from a backup and went on, or its seal was made anew; see docs/audit.md"
                    ) from None

    @contextmanager
    def _told(self) -> Iterator[ObjectStore]:
        """The place; its errors in the application's words."""
        try:
            if self._made is None:
                self._made = _store(self._place)
            yield self._made
        except (OSError, BaseError) as error:
            raise StoreUnavailable(f"checkpoints cannot be anchored at {self._place}: {error}") from error


def _store(place: str) -> ObjectStore:
    """A bucket with an object lock takes only what comes with a checksum."""
    if "://" not in place:
        return LocalStore(Path(place).expanduser().absolute(), mkdir=True)
    config = {"aws_checksum_algorithm": "sha256"} if place.startswith("s3://") else None
    retries = {"max_retries": 2, "retry_timeout": timedelta(seconds=10)}
    return from_url(place, config=config, retry_config=retries)  # type: ignore[call-overload, no-any-return]
