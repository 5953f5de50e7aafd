"""The examples of a proxy: real nginx and Caddy, where they are installed, before a real server."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from shoplens.settings import Settings
from tests.conftest import RunningServer, colourful, jpeg_of, running_server
from tests.deploy.files import DEPLOY

NGINX = (DEPLOY / "proxy" / "nginx.conf").read_text()
CADDY = (DEPLOY / "proxy" / "Caddyfile").read_text()
NAME = "photos.example.org"
PASSWORD = ("clerk", "open sesame")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[RunningServer]:
    """A server as the guide sets it up."""
    settings = {"allowed_hosts": f"{NAME},127.0.0.1", "trusted_proxies": "127.0.0.1"}
    with running_server(tmp_path_factory.mktemp("behind") / "data", models_dir, **settings) as started:
        yield started


def free_port() -> int:
    """One that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, log: Path) -> Iterator[None]:
    """A proxy that listens on `port` and keeps its files beside `log`."""
    own = os.environ | {"XDG_CONFIG_HOME": str(log.parent), "XDG_DATA_HOME": str(log.parent)}
    with log.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=own) as process:
        try:
            give_up_at = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < give_up_at, f"nobody listens on {port}: {log.read_text()}"
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield
        finally:
            process.terminate()
            process.wait(30)


def certificate(folder: Path) -> None:
    """A certificate for the name, signed by itself."""
    key = Ed25519PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, None)
    )
    (folder / "fullchain.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "privkey.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def check_proxy(url: str) -> None:
    """What every proxy must do, seen from outside."""
    photo = jpeg_of(colourful(5))
    host = {"Host": NAME}
    with httpx.Client(base_url=url, headers=host, verify=False, trust_env=False, timeout=30) as anyone:
        assert [401, 401, 401] == [anyone.get(path).status_code for path in ("/", "/predictions", "/metrics")]
        assert 401 == anyone.post("/predict", content=photo).status_code
    with httpx.Client(base_url=url, headers=host, auth=PASSWORD, verify=False, trust_env=False, timeout=30) as clerk:
        assert 200 == clerk.post("/predict", content=photo).status_code
        assert "<html" in clerk.get("/").text
        scheme = url.partition("://")[0]
        form = clerk.post("/predict", files={"file": photo}, headers={"Origin": f"{scheme}://{NAME}"})
        assert 200 == form.status_code, form.text
        foreign = clerk.post("/predict", files={"file": photo}, headers={"Origin": "https://evil.example"})
        assert (403, "request_forbidden") == (foreign.status_code, foreign.json()["code"])
        # Old versions of Caddy answer 502 where the body breaks off.
        assert clerk.post("/predict", content=bytes(3_000_000)).status_code in {413, 502}
        assert clerk.get("/", headers={"X-Long": "x" * 70_000}).status_code in {400, 431, 494}
        large = clerk.get("/openapi.json")
        assert 200 == large.status_code


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_offers_the_server_with_tls_and_a_password(behind: RunningServer, tmp_path: Path) -> None:
    """With ports of its own, its files in a folder of the test, and a smaller body."""
    certificate(tmp_path)
    (tmp_path / "shoplens.htpasswd").write_text("{}:{{PLAIN}}{}\n".format(*PASSWORD))
    plain, secure = free_port(), free_port()
    own = {
        "listen 80;": f"listen 127.0.0.1:{plain};", "listen 443 ssl;": f"listen 127.0.0.1:{secure} ssl;",
        f"/etc/letsencrypt/live/{NAME}": str(tmp_path), "/etc/nginx/shoplens.htpasswd": f"{tmp_path}/shoplens.htpasswd",
        "http://127.0.0.1:8000": behind.url, "256m": "2m",
    }  # fmt: skip
    text = NGINX
    for written, used in own.items():
        assert written in text
        text = text.replace(written, used)
    (tmp_path / "shoplens.conf").write_text(text)
    folders = "".join(
        f"    {kind}_temp_path {tmp_path}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "main.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {tmp_path}/pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\n    access_log off;\n{folders}    include {tmp_path}/shoplens.conf;\n}}\n"
    )
    command = ["nginx", "-p", str(tmp_path), "-c", str(tmp_path / "main.conf"), "-e", "stderr"]
    with running(command, secure, tmp_path / "nginx.log"):
        moved = httpx.get(f"http://127.0.0.1:{plain}/console?a=1", headers={"Host": NAME}, trust_env=False)
        assert (301, f"https://{NAME}/console?a=1") == (moved.status_code, moved.headers["Location"])
        check_proxy(f"https://127.0.0.1:{secure}")


@pytest.mark.skipif(shutil.which("caddy") is None, reason="needs caddy")
def test_caddy_offers_the_server_with_a_password(behind: RunningServer, tmp_path: Path) -> None:
    """Without its certificate from the internet; a version before 2.8 has another name for the password."""
    said = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", said)
    old = found is not None and (int(found[1]), int(found[2])) < (2, 8)
    hashed = subprocess.run(
        ["caddy", "hash-password", "--plaintext", PASSWORD[1]], capture_output=True, text=True, check=True
    ).stdout.strip()
    port = free_port()
    placeholder = re.search(r"\$2a\$14\$\S+", CADDY)
    assert placeholder is not None
    own = {
        f"{NAME} {{": f"http://{NAME}:{port} {{", placeholder[0]: hashed, "127.0.0.1:8000": behind.url.partition("://")[2],
        "256MB": "2MB", "{\n\tservers": "{\n\tadmin off\n\tservers",
    }  # fmt: skip
    text = CADDY
    for written, used in own.items():
        assert written in text
        text = text.replace(written, used)
    (tmp_path / "Caddyfile").write_text(text.replace("basic_auth", "basicauth") if old else text)
    command = ["caddy", "run", "--config", str(tmp_path / "Caddyfile"), "--adapter", "caddyfile"]
    with running(command, port, tmp_path / "caddy.log"):
        check_proxy(f"http://127.0.0.1:{port}")


def test_the_largest_body_of_a_proxy_is_that_of_the_server() -> None:
    """And the address is the default one."""
    limit = Settings.model_fields["max_queued_bytes"].default // 1_000_000
    assert f"client_max_body_size {limit}m;" in NGINX
    assert f"max_size {limit}MB" in CADDY
    address = f"{Settings.model_fields['host'].default}:{Settings.model_fields['port'].default}"
    assert f"proxy_pass http://{address};" in NGINX
    assert f"reverse_proxy {address} {{" in CADDY
