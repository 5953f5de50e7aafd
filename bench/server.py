"""A real `shoplens serve` process for the benches, with its own data directory."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.children import Result
from shoplens.testing import cost

_START_TIMEOUT_S = 60


class Server:
    """Started on entering, stopped on leaving. `environment` holds settings such as SHOPLENS_CHANNELS__LOOK__KEEP."""

    def __init__(self, data_dir: Path, models_dir: Path, environment: dict[str, str] | None = None) -> None:
        self._log = data_dir / "server.log"
        self._environment = {
            **os.environ,
            "SHOPLENS_DATA_DIR": str(data_dir),
            "SHOPLENS_MODELS_DIR": str(models_dir),
            **(environment or {}),
        }
        self.url = ""
        self.start_s = 0.0

    def __enter__(self) -> Self:
        began = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shoplens", "serve", "--port", "0"], env=self._environment, stderr=log
            )
        self.url = self._wait_for_url(began + _START_TIMEOUT_S)
        while not self._is_ready():
            time.sleep(0.02)
        self.start_s = time.perf_counter() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(30)

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def load(self, folder: str, *, connections: int, seconds: float, query: str = "top_k=5") -> Result:
        """Load from a second process; what it costs is not counted, only what the server's process uses."""
        command = [sys.executable, "-m", "bench.server_load", f"{self.url}/predict?{query}", folder]
        before = cost.read(self.pid)
        done = subprocess.run([*command, str(connections), str(seconds)], stdout=subprocess.PIPE, check=True, text=True)
        after = cost.read(self.pid)
        latencies = json.loads(done.stdout)
        # The client's own start-up is not serving time.
        reading = cost.Reading(cpu_s=after.cpu_s, at_s=before.at_s + seconds)
        return Result.of(
            images=len(latencies),
            before=before,
            after=reading,
            latencies_s=latencies,
            peak_mb=cost.peak_megabytes(self.pid),
        )

    def _wait_for_url(self, until: float) -> str:
        while time.perf_counter() < until and self._process.poll() is None:
            if found := re.search(r"ready at (http://\S+)", self._log.read_text()):
                return found[1]
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start: {self._log.read_text()}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health/ready", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False
