"""A server without ComfyUI: its front end, from PyPI, over what the nodes promise.

It answers what the front end asks when it starts, with the standard library alone, and runs no graph.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata, util
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

PACKAGE = "comfyui_frontend_package"
TYPES = {  # by suffix; the system's own table may lack or mistake them
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
QUEUE = {"exec_info": {"queue_remaining": 0}}
SYSTEM = {
    "os": "posix",
    "comfyui_version": "stub",
    "python_version": "",
    "pytorch_version": "",
    "argv": [],
    "embedded_python": False,
    "ram_total": 0,
    "ram_free": 0,
}


def front_ends() -> dict[str, Path]:
    """The static files of every front end on this machine, by version: installed, or put aside by `make browser`."""
    asides = sorted(Path(sys.prefix, "front-ends").glob(f"*/{PACKAGE}"))
    found = {folder.parent.name: folder / "static" for folder in asides}
    spec = util.find_spec(PACKAGE)
    if spec is not None and spec.origin is not None:
        found[metadata.version(PACKAGE)] = Path(spec.origin).parent / "static"
    return found


@dataclass(frozen=True)
class Answers:
    """What the server has to say.

    Attributes:
        static: the front end's files.
        object_info: every node.
        i18n: texts by language.
        blueprints: subgraph blueprints (JSON) by name.
        settings: of the user; the front end writes them.
    """

    static: Path
    object_info: dict[str, Any]
    i18n: dict[str, Any] = field(default_factory=dict)
    blueprints: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def of(self, path: str) -> Any:
        """The answer to `/api/<path>`; None where a server has none."""
        folder, _, name = path.partition("/")
        if folder == "global_subgraphs":
            entries = {
                key: {"source": "custom_node", "name": key, "info": {"node_pack": "custom_nodes.stub"}}
                for key in self.blueprints
            }
            return entries[name] | {"data": self.blueprints[name]} if name in entries else None if name else entries
        return {
            "object_info": self.object_info,
            "i18n": self.i18n,
            "settings": self.settings,
            "users": {"storage": "server", "migrated": True},
            "userdata": [],
            "extensions": [],
            "embeddings": [],
            "experiment/models": [],
            "workflow_templates": {},
            "node_replacements": {},
            "features": {},
            "prompt": QUEUE,
            "queue": {"queue_running": [], "queue_pending": []},
            "history": {},
            "jobs": {"jobs": [], "pagination": {"offset": 0, "limit": 200, "total": 0, "has_more": False}},
            "system_stats": {"system": SYSTEM, "devices": []},
        }.get(path)


class Handler(BaseHTTPRequestHandler):
    """Files, JSON, and a websocket on which nothing happens."""

    protocol_version = "HTTP/1.1"

    def __init__(self, answers: Answers, *args: Any) -> None:
        self.answers = answers
        super().__init__(*args)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer."""
        path = unquote(urlsplit(self.path).path)
        if path == "/ws":
            self._websocket()
        elif path.startswith("/api/"):
            answer = self.answers.of(path.removeprefix("/api/"))
            self._reply(404 if answer is None else 200, json.dumps(answer).encode(), ".json")
        else:
            self._file(path.removeprefix("/") or "index.html")

    def do_POST(self) -> None:
        """Take settings; take everything else without a word."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        match = re.fullmatch(r"/api/settings/?(.*)", unquote(urlsplit(self.path).path))
        if match:
            value = json.loads(body)
            self.answers.settings.update({match[1]: value} if match[1] else value)
        self._reply(200, b"{}", ".json")

    def _file(self, name: str) -> None:
        path = (self.answers.static / name).resolve()
        if path.is_file() and path.is_relative_to(self.answers.static.resolve()):
            self._reply(200, path.read_bytes(), path.suffix)
        else:
            self._reply(404, b"", ".html")

    def _reply(self, status: int, body: bytes, suffix: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", TYPES.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _websocket(self) -> None:
        key = self.headers["Sec-WebSocket-Key"] + GUID
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(hashlib.sha1(key.encode()).digest()).decode())
        self.end_headers()
        text = json.dumps({"type": "status", "data": {"status": QUEUE, "sid": "stub"}}).encode()
        self.wfile.write(bytes([0x81, len(text)]) + text)  # one short text frame
        self.close_connection = True
        while self.rfile.read(1):  # until the page goes away
            pass


class _Server(ThreadingHTTPServer):
    request_queue_size = 64  # a browser opens more connections at once than the usual 5


@contextmanager
def stub_server(answers: Answers) -> Iterator[str]:
    """Serve on loopback; the address."""
    with _Server(("127.0.0.1", 0), partial(Handler, answers)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
