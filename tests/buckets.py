"""A real S3 server for tests: moto's, with one bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3  # type: ignore[import-untyped]
from moto.server import ThreadedMotoServer

NAME = "jobs"


class Bucket:
    """A bucket, and the settings by which a service reaches it."""

    url = f"s3://{NAME}/some/prefix"

    def __init__(self, endpoint: str) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
        }
        self._s3: Any = boto3.client(
            "s3",
            endpoint_url=endpoint,
            region_name="us-east-1",
            aws_access_key_id="key",
            aws_secret_access_key="secret",
        )
        self._s3.create_bucket(Bucket=NAME)

    def contents(self) -> dict[str, int]:
        """The sizes of all objects, by key below the prefix."""
        listed = self._s3.list_objects_v2(Bucket=NAME).get("Contents", [])
        return {one["Key"].removeprefix("some/prefix/"): one["Size"] for one in listed}

    def half_uploads(self) -> list[Any]:
        """Multipart uploads that were begun and neither completed nor aborted."""
        return list(self._s3.list_multipart_uploads(Bucket=NAME).get("Uploads", []))

    def empty(self) -> None:
        for key in self.contents():
            self._s3.delete_object(Bucket=NAME, Key=f"some/prefix/{key}")


@contextmanager
def a_bucket() -> Iterator[Bucket]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        bucket = Bucket(f"http://127.0.0.1:{port}")
        bucket.empty()  # the servers of one process share what they keep
        yield bucket
    finally:
        server.stop()
