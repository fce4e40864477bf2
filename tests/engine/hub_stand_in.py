"""A small server that speaks the part of the Hugging Face hub's HTTP interface which uploads and downloads use."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_standInSecretToken"


class Hub:
    """The repositories by their id, each with its files; who asked for what; and whether uploads fail."""

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.made: list[dict[str, Any]] = []
        self.commits: list[tuple[str, list[str]]] = []
        self.read_only = False
        self.broken = False
        self.held = threading.Event()  # commits wait for it
        self.held.set()
        self.endpoint = ""

    def sha(self, repository: str) -> str:
        content = sorted((path, hashlib.sha1(data).hexdigest()) for path, data in self.repositories[repository].items())
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()


class Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        body = self._body()
        parts = urlsplit(self.path).path.strip("/").split("/")
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid username or password."})
        if parts[:3] == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        repository, action = "/".join(parts[2:4]), parts[4]
        if action == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if action == "commit":
            self.hub.held.wait(20)
            if self.hub.broken:
                return self._answer(403, {"error": "the storage is full"})
            return self._commit(repository, [json.loads(line) for line in body.decode().splitlines() if line])
        return self._answer(404, {"error": "unknown"})

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization'] or 'me'}/{asked['name']}"
        self.hub.made.append(asked)
        known = repository in self.hub.repositories
        self.hub.repositories.setdefault(repository, {})
        url = f"{self.hub.endpoint}/{repository}"
        self._answer(409 if known else 200, {"url": url, "error": "exists"} if known else {"url": url})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        files = {line["value"]["path"]: line["value"]["content"] for line in lines if line["key"] == "file"}
        for path, content in files.items():
            self.hub.repositories[repository][path] = base64.b64decode(content)
        self.hub.commits.append((lines[0]["value"]["summary"], sorted(files)))
        sha = self.hub.sha(repository)
        url = f"{self.hub.endpoint}/{repository}/commit/{sha}"
        self._answer(200, {"commitUrl": url, "commitOid": sha, "pullRequestUrl": None})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            repository, action = "/".join(parts[2:4]), "".join(parts[4:5])
            if repository not in self.hub.repositories:
                return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
            if action == "auth-check":
                return self._answer(403 if self.hub.read_only else 200, {"error": "no rights"})
            files = self.hub.repositories[repository]
            if action == "tree":
                listed = [self._entry(path, data) for path, data in files.items()]
                return self._answer(200, listed)
            siblings = [{"rfilename": path, "size": len(data)} for path, data in files.items()]
            return self._answer(200, {"id": repository, "sha": self.hub.sha(repository), "siblings": siblings})
        return self._file("/".join(parts[:2]), "/".join(parts[4:]))

    def _entry(self, path: str, data: bytes) -> dict[str, Any]:
        return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _file(self, repository: str, path: str) -> None:
        data = self.hub.repositories.get(repository, {}).get(path)
        if data is None:
            return self._answer(404, {"error": "not found"}, {"X-Error-Code": "EntryNotFound"})
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": self.hub.sha(repository)}
        return self._send(200, data, headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while length := int(self.rfile.readline(), 16):
            body += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(content).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def stand_in(cache: Path) -> Iterator[Hub]:
    """A hub on this machine, for the time of the block; huggingface_hub asks it and keeps its files in the cache."""
    with serving() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "ENDPOINT", hub.endpoint)
        template = hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patch.setattr(constants, "HF_HUB_OFFLINE", False)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        yield hub


@contextmanager
def serving() -> Iterator[Hub]:
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.held.set()
        server.shutdown()
        server.server_close()
