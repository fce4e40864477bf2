"""An editor's server in this process, and requests to it."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.editor.document import Document
from lora_trainer.editor.server import EditorServer
from lora_trainer.editor.session import Session

TOKEN = "the-token"
Serve = Callable[..., EditorServer]
Ask = Callable[..., tuple[int, Any]]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """`serve(path, trainer="")` answers until the test is over."""
    with ExitStack() as stack:

        def start(path: Path, trainer: str = "") -> EditorServer:
            server = EditorServer(Session(Document(path), trainer), TOKEN)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            stack.callback(server.end_plan)
            return server

        yield start


@pytest.fixture
def ask() -> Ask:
    """`ask(server, name, body)` gives status and answer; headers and the method can be others than the page's."""

    def request(
        server: EditorServer,
        name: str,
        body: object = None,
        *,
        token: str = TOKEN,
        method: str = "",
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        own = {"Origin": f"http://127.0.0.1:{server.server_port}"} if data is not None else {}
        connection.request(
            method or ("GET" if data is None else "POST"), f"/{token}/{name}", data, {**own, **(headers or {})}
        )
        response = connection.getresponse()
        answer = response.read()
        is_json = response.headers["Content-Type"] == "application/json"
        connection.close()
        return response.status, json.loads(answer) if is_json else answer

    return request
