"""The editor's web server: on this computer alone, for whoever knows the token, and for one preset."""

from __future__ import annotations

import hmac
import http.server
import json
import os
import secrets
import select
import socket
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict
from http import HTTPStatus
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

from lora_trainer.config.json_source import LARGEST_BYTES
from lora_trainer.editor.document import ChangedMeanwhile
from lora_trainer.editor.form import form
from lora_trainer.editor.plan import Plan
from lora_trainer.editor.session import Session
from lora_trainer.errors import Refusal

ADDRESS = "127.0.0.1"
LARGEST_REQUEST_BYTES = 2 * LARGEST_BYTES  # the text with its line ends and quotes escaped, and what surrounds it
LOOK_S = 0.5  # how often a planning without lines is asked whether anyone still listens

# What the browser may load, by its name in the address: from which package's page/ folder, and as what
FILES: Mapping[str, tuple[str, str]] = {
    "": ("lora_trainer.editor", "text/html"),
    "look.css": ("lora_trainer.report", "text/css"),
    "editor.css": ("lora_trainer.editor", "text/css"),
    "editor.js": ("lora_trainer.editor", "text/javascript"),
    "preset.js": ("lora_trainer.editor", "text/javascript"),
    "inputs.js": ("lora_trainer.editor", "text/javascript"),
    "keys.js": ("lora_trainer.editor", "text/javascript"),
    "rows.js": ("lora_trainer.editor", "text/javascript"),
    "planning.js": ("lora_trainer.editor", "text/javascript"),
}
# What the page may ask for with a POST, and what it then sends
ASKED: Mapping[str, Mapping[str, type]] = {
    "look": {"text": str, "changes": list},
    "begin": {"trainer": str},
    "save": {"text": str, "version": str, "over_changes": bool},
    "plan": {},
    "plan/end": {},
}
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class EditorServer(http.server.ThreadingHTTPServer):
    """Listens when it is made. Raises OSError when the port is taken."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # on Windows it would let two programs share the port

    def __init__(self, session: Session, token: str, port: int = 0) -> None:
        super().__init__((ADDRESS, port), Handler)
        self.session = session
        self.token = token
        self.door = secrets.token_urlsafe(24)
        self.plan: Plan | None = None
        self.planning = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    @property
    def address_for_once(self) -> str:
        """For the command line of a browser, which other users of the computer may read: it is worth nothing twice."""
        return f"http://{ADDRESS}:{self.server_port}/{self.door}/"

    @property
    def hosts(self) -> tuple[str, ...]:
        """What a browser on this computer calls this server; a page of another name has no business here."""
        return f"{ADDRESS}:{self.server_port}", f"localhost:{self.server_port}"

    def start_plan(self) -> Plan:
        """Raises Refusal while another one is made."""
        with self.planning:
            if self.plan is not None and self.plan.process.poll() is None:
                raise Refusal("a plan is being made already; wait for it or cancel it")
            self.plan = Plan(self.session.path)
            return self.plan

    def end_plan(self) -> None:
        with self.planning:
            if self.plan is not None:
                self.plan.end()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that hangs up is no news."""


class _Elsewhere(Exception):
    """The address for once was asked for."""


class _Unwelcome(Exception):
    def __init__(self, status: HTTPStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Handler(http.server.BaseHTTPRequestHandler):
    """Judges each request by where it comes from before it looks at what is asked."""

    server: EditorServer
    timeout = 60
    server_version = "lora_trainer"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nothing: the address holds the token."""

    def _answer(self, act: Callable[[str], None]) -> None:
        try:
            act(self._asked_for())
        except _Elsewhere:
            self._begin(HTTPStatus.SEE_OTHER, "text/plain", 0, {"Location": f"/{self.server.token}/"})
        except _Unwelcome as unwelcome:
            self._send_json({"refused": str(unwelcome)}, unwelcome.status)
        except ChangedMeanwhile as refusal:
            self._send_json({"refused": str(refusal), "changed": True}, HTTPStatus.CONFLICT)
        except Refusal as refusal:
            self._send_json({"refused": str(refusal)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        except OSError:
            raise  # the browser hung up
        except Exception:
            traceback.print_exc()
            sentence = "the editor failed at this; the terminal in which it runs says how"
            self._send_json({"refused": sentence}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _asked_for(self) -> str:
        """What stands after the token in the address, once the request is known to be the page's own."""
        if self.headers.get("Host") not in self.server.hosts:
            raise _Unwelcome(HTTPStatus.FORBIDDEN, f"this server is for {ADDRESS} alone")
        _, token, *name = urlsplit(self.path).path.split("/", 2) + [""] * 2
        if hmac.compare_digest(token.encode(), self.server.door.encode()):
            self.server.door = secrets.token_urlsafe(24)
            raise _Elsewhere
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            raise _Unwelcome(HTTPStatus.FORBIDDEN, "the token is missing or wrong; take the address from the terminal")
        if self.path.count("/") == 1:  # names in the page count from the slash
            raise _Elsewhere
        return name[0]

    def _get(self, name: str) -> None:
        if name in FILES:
            package, kind = FILES[name]
            data = resources.files(package).joinpath("page", name or "editor.html").read_bytes()
            self._send(data, f"{kind}; charset=utf-8")
        elif name == "state":
            self._send_json(self.server.session.state())
        elif name == "version":
            self._send_json({"version": self.server.session.document.read().version})
        elif name.startswith("form/"):
            self._send_json(form(name.removeprefix("form/")))
        else:
            raise _Unwelcome(HTTPStatus.NOT_FOUND, "there is no such page")

    def _post(self, name: str) -> None:
        origins = [f"http://{host}" for host in self.server.hosts]
        if self.headers.get("Origin") not in origins:
            raise _Unwelcome(HTTPStatus.FORBIDDEN, "the request comes from another page")
        if name not in ASKED:
            raise _Unwelcome(HTTPStatus.NOT_FOUND, "there is no such page")
        asked = self._body(ASKED[name])
        session = self.server.session
        if name == "plan":
            self._stream(self.server.start_plan())
        elif name == "plan/end":
            self.server.end_plan()
            self._send_json({})
        elif name == "look":
            self._send_json(session.look(asked["text"], asked["changes"]))
        elif name == "begin":
            self._send_json(session.begin(asked["trainer"]))
        else:
            self._send_json(asdict(session.save(asked["text"], asked["version"], asked["over_changes"])))

    def _body(self, kinds: Mapping[str, type]) -> dict[str, Any]:
        """What the page sends, when it is of these kinds."""
        length = self.headers.get("Content-Length") or ""
        if not length.isdecimal() or int(length) > LARGEST_REQUEST_BYTES:
            raise _Unwelcome(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "a request has a length, and at most 8 MB")
        try:
            asked = json.loads(self.rfile.read(int(length)))
        except ValueError:
            asked = None
        if not isinstance(asked, dict) or any(not isinstance(asked.get(name), kind) for name, kind in kinds.items()):
            raise _Unwelcome(HTTPStatus.BAD_REQUEST, "this is no request of the page; reload it")
        return asked

    def _stream(self, plan: Plan) -> None:
        """A line of JSON for each line of the planning, which ends when the browser hangs up."""
        try:
            self._begin(HTTPStatus.OK, "application/x-ndjson; charset=utf-8", None)
            for line in plan.lines(LOOK_S):
                if line is not None:
                    self._write({"line": line})
                elif _hung_up(self.connection):
                    return
            self._write({"ended": plan.end()})
        except OSError:
            pass
        finally:
            plan.end()

    def _write(self, value: object) -> None:
        self.wfile.write(json.dumps(value).encode() + b"\n")
        self.wfile.flush()

    def _send_json(self, value: object, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._begin(status, kind, len(data))
        self.wfile.write(data)

    def _begin(self, status: HTTPStatus, kind: str, length: int | None, more: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in {**HEADERS, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()


def _hung_up(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)
