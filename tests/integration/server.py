"""Talking to a ComfyUI server with the standard library alone."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# Loopback must not go through a proxy.
_OPEN = urllib.request.build_opener(urllib.request.ProxyHandler({})).open


class Refused(Exception):
    """The server did not accept a graph; holds its reasons."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        url: where it listens.
        base: its base folder.
        log: its log file.
    """

    url: str
    base: Path
    log: Path

    def get(self, path: str) -> Any:
        """The JSON that the server answers."""
        with _OPEN(f"{self.url}{path}", timeout=60) as reply:
            return json.loads(reply.read())

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON that the server answers, None for an empty answer."""
        data = json.dumps(body if body is not None else {}).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, {"Content-Type": "application/json"}, method="POST")
        try:
            with _OPEN(request, timeout=60) as reply:
                answer = reply.read()
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from None
        return json.loads(answer) if answer else None

    def answers(self) -> bool:
        """Whether the server is up."""
        try:
            self.get("/system_stats")
        except OSError:
            return False
        return True

    def submit(self, prompt: dict[str, Any]) -> str:
        """Queue a graph; its id. Raises Refused with the server's reasons, also where it would run a part of it."""
        answer = self.post("/prompt", {"prompt": prompt})
        if answer.get("node_errors"):
            raise Refused(json.dumps(answer["node_errors"]))
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 600) -> dict[str, Any]:
        """The history of a graph, once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            history = self.get(f"/history/{prompt_id}")
            if prompt_id in history:
                return history[prompt_id]
            time.sleep(0.1)
        raise TimeoutError(f"not done after {seconds} s:\n{self.log.read_text(errors='replace')[-2000:]}")

    def run(self, prompt: dict[str, Any], seconds: float = 600) -> dict[str, Any]:
        """The outputs of every node of a graph that must succeed."""
        entry = self.wait(self.submit(prompt), seconds)
        if entry["status"]["status_str"] != "success":
            raise RuntimeError(failure(entry))
        return entry["outputs"]

    def kept(self, name: str) -> np.ndarray:
        """What the node KeepImage wrote."""
        return np.load(self.base / "output" / f"{name}.npy")


def failure(entry: dict[str, Any]) -> str:
    """The message of the node that failed or was interrupted."""
    for kind, data in entry["status"]["messages"]:
        if kind in ("execution_error", "execution_interrupted"):
            return f"{kind}: {data['node_type']}: {data.get('exception_message', '')}".strip()
    return ""
