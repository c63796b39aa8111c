"""Real servers of buckets for tests, with one bucket: S3 and Google Cloud Storage by moto, Azure by Azurite."""

import base64
import hashlib
import hmac
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Thread, Timer
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

import boto3  # type: ignore[import-untyped]
import httpx2
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from moto.server import ThreadedMotoServer
from werkzeug.serving import make_server

NAME = "jobs"
AZURITE = Path(__file__).parent / "azurite" / "node_modules" / ".bin"
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Published with Azurite, and the same everywhere."""
AZURITE_PATIENCE = 60.0
SIGNED = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"


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


class GoogleBucket(Bucket):
    """The same bucket by Google's XML API, which is that of S3 but for two headers in all that a store here asks."""

    url = f"gs://{NAME}/some/prefix"

    def __init__(self, endpoint: str) -> None:
        super().__init__(endpoint)
        self.environment = google_settings(endpoint)


class GoogleServer(DomainDispatcherApplication):
    """moto, for a client of Google's XML API: it comes without a token, and names the version it wants to replace."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_AUTHORIZATION", "Bearer").strip() == "Bearer":
            environ["HTTP_AUTHORIZATION"] = SIGNED
        if environ.get("HTTP_X_GOOG_IF_GENERATION_MATCH") == "0":
            environ["HTTP_IF_NONE_MATCH"] = "*"
        answer: Iterable[bytes] = super().__call__(environ, start_response)
        return answer


class AzureBucket:
    """A container of Azurite, and the settings by which a service reaches it."""

    url = f"az://{NAME}/some/prefix"

    def __init__(self, endpoint: str) -> None:
        self.environment = azure_settings(endpoint)
        self._endpoint = endpoint
        self._ask("PUT", restype="container")

    def contents(self) -> dict[str, int]:
        """The sizes of all objects, by key below the prefix."""
        return dict(self._listed())

    def half_uploads(self) -> list[str]:
        """Objects of which blocks are there that were never committed."""
        return [key for key, _ in self._listed(include="uncommittedblobs") if key not in self.contents()]

    def empty(self) -> None:
        for key in self.contents():
            self._ask("DELETE", f"/some/prefix/{key}")

    def _listed(self, **options: str) -> list[tuple[str, int]]:
        listed = self._ask("GET", comp="list", restype="container", **options)
        found = re.findall(r"<Name>some/prefix/([^<]*)</Name>.*?<Content-Length>(\d+)<", listed, re.DOTALL)
        return [(key, int(size)) for key, size in found]

    def _ask(self, method: str, key: str = "", **parameters: str) -> str:
        """A request signed with the account's key."""
        path = f"/{AZURITE_ACCOUNT}/{NAME}{key}"
        headers = {"x-ms-date": f"{datetime.now(UTC):%a, %d %b %Y %H:%M:%S} GMT", "x-ms-version": "2021-08-06"}
        lines = [method, *[""] * 11, *(f"{name}:{value}" for name, value in headers.items())]
        lines += [f"/{AZURITE_ACCOUNT}{path}", *(f"{name}:{value}" for name, value in sorted(parameters.items()))]
        signature = hmac.digest(base64.b64decode(AZURITE_KEY), "\n".join(lines).encode(), hashlib.sha256)
        headers["authorization"] = f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(signature).decode()}"
        answer = httpx2.request(method, f"{self._endpoint}{path}", params=parameters, headers=headers)
        return answer.raise_for_status().text


def google_settings(endpoint: str) -> dict[str, str]:
    """Of a service account that is nobody's and leads to `endpoint`."""
    nobody = {"client_email": "", "private_key": "", "private_key_id": ""}
    account = json.dumps({"gcs_base_url": endpoint, "disable_oauth": True, **nobody})
    return {"GOOGLE_SERVICE_ACCOUNT_KEY": account}


def azure_settings(endpoint: str) -> dict[str, str]:
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": AZURITE_ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": AZURITE_KEY,
        "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{AZURITE_ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }


def find_azurite() -> str | None:
    """Where Azurite's server of blobs is, if it is installed."""
    return shutil.which("azurite-blob", path=os.pathsep.join((str(AZURITE), os.environ.get("PATH", os.defpath))))


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


@contextmanager
def a_google_bucket() -> Iterator[GoogleBucket]:
    server = make_server("127.0.0.1", 0, GoogleServer(create_backend_app), threaded=True)
    serving = Thread(target=server.serve_forever, daemon=True)
    serving.start()
    try:
        bucket = GoogleBucket(f"http://127.0.0.1:{server.port}")
        bucket.empty()
        yield bucket
    finally:
        server.shutdown()
        serving.join()


@contextmanager
def an_azure_bucket(azurite: str) -> Iterator[AzureBucket]:
    options = ["--blobPort", "0", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    with subprocess.Popen([azurite, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        patience = Timer(AZURITE_PATIENCE, server.kill)
        patience.start()
        try:
            assert server.stdout is not None
            listens = next((line for line in server.stdout if "successfully listens on" in line), None)
            assert listens is not None, f"Azurite ended, or did not come up in {AZURITE_PATIENCE:g} s"
            patience.cancel()
            yield AzureBucket(listens.split()[-1])
        finally:
            patience.cancel()
            server.kill()
