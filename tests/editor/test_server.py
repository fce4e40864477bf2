"""Whoever is not the page gets nothing; the page gets the preset, and nothing but it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.editor.server import FILES, LARGEST_REQUEST_BYTES, EditorServer
from tests.editor.conftest import Ask, Serve

PDXL = Path(__file__).resolve().parents[2] / "presets" / "pdxl.json"
LOOK = {"text": "{}", "changes": []}


@pytest.fixture
def server(tmp_path: Path, serve: Serve) -> EditorServer:
    path = tmp_path / "mein preset ü.json"
    path.write_bytes(PDXL.read_bytes())
    return serve(path)


def test_it_listens_on_this_computer_alone(server: EditorServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/the-token/"


@pytest.mark.parametrize("token", ["", "the-toke", "the-tokenn", "ä", "THE-TOKEN", "state"])
@pytest.mark.parametrize(("name", "body"), [("", None), ("editor.js", None), ("state", None), ("look", LOOK)])
def test_without_the_token_there_is_nothing(
    server: EditorServer, ask: Ask, token: str, name: str, body: object
) -> None:
    from urllib.parse import quote

    status, answer = ask(server, name, body, token=quote(token))
    assert status == 403
    assert answer == {"refused": "the token is missing or wrong; take the address from the terminal"}


def test_the_address_for_once_leads_to_the_page_once(server: EditorServer, ask: Ask) -> None:
    door = server.address_for_once.rsplit("/", 2)[1]
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request("GET", f"/{door}/")
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (303, "/the-token/")
    connection.close()
    assert ask(server, "", token=door)[0] == 403
    assert server.address_for_once != server.address


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_host_is_refused(server: EditorServer, ask: Ask, host: str) -> None:
    status, answer = ask(server, "state", headers={"Host": host.format(port=server.server_port)})
    assert (status, answer) == (403, {"refused": "this server is for 127.0.0.1 alone"})


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_another_origin_is_refused(server: EditorServer, ask: Ask, origin: str) -> None:
    status, answer = ask(server, "look", LOOK, headers={"Origin": origin.format(port=server.server_port)})
    assert (status, answer) == (403, {"refused": "the request comes from another page"})


def test_a_post_without_origin_is_refused(server: EditorServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request("POST", "/the-token/look", json.dumps(LOOK).encode())
    assert connection.getresponse().status == 403
    connection.close()


def test_localhost_is_this_computer_too(server: EditorServer, ask: Ask) -> None:
    port = server.server_port
    headers = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
    assert ask(server, "look", LOOK, headers=headers)[0] == 200


@pytest.mark.parametrize("length", [str(LARGEST_REQUEST_BYTES + 1), "-1", "", "99999999999999999999"])
def test_what_is_too_large_is_not_even_read(server: EditorServer, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=5) as connection:
        host = f"127.0.0.1:{server.server_port}"
        lines = ["POST /the-token/look HTTP/1.0", f"Host: {host}", f"Origin: http://{host}"]
        lines += [f"Content-Length: {length}"] if length else []
        connection.sendall("\r\n".join([*lines, "", ""]).encode())
        answer = b"".join(iter(lambda: connection.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.0 413 ")
    assert b"a request has a length, and at most 8 MB" in answer


@pytest.mark.parametrize(
    "name",
    [
        "../document.py", "..%2fdocument.py", "page/editor.html", "/etc/passwd", "%2fetc%2fpasswd", "editor.html",
        "form/../../x", "pdxl.json", "editor.js/", "form/", "form/lroa",
    ],
)  # fmt: skip
def test_no_path_leads_to_a_file(server: EditorServer, ask: Ask, name: str) -> None:
    status, answer = ask(server, name)
    assert status in (404, 422)
    assert set(answer) == {"refused"}


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "HEAD"])
def test_other_methods_are_none(server: EditorServer, ask: Ask, method: str) -> None:
    assert ask(server, "state", method=method)[0] == 501


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", {}, {"text": 5, "changes": []}, {"text": "{}"}])
def test_what_no_page_would_ask_is_refused(server: EditorServer, ask: Ask, body: object) -> None:
    assert ask(server, "look", body) == (400, {"refused": "this is no request of the page; reload it"})


@pytest.mark.parametrize(
    "change",
    [
        1, {}, {"do": "put", "path": [], "written": "1"}, {"do": "put", "path": [[]], "written": "1"},
        {"do": "put", "path": ["a"], "written": 1}, {"do": "remove", "path": [True]},
    ],
)  # fmt: skip
def test_what_is_no_change_is_refused(server: EditorServer, ask: Ask, change: object) -> None:
    status, answer = ask(server, "look", {"text": "{}", "changes": [change]})
    assert (status, answer) == (422, {"refused": "the page asks for a change that is none; reload it"})


def test_an_address_without_its_last_slash_gets_it(server: EditorServer) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request("GET", "/the-token")
    response = connection.getresponse()
    assert (response.status, response.headers["Location"]) == (303, "/the-token/")
    connection.close()


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_the_page_is_there_and_safe(server: EditorServer, name: str) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)
    connection.request("GET", f"/the-token/{name}")
    response = connection.getresponse()
    assert response.status == 200
    assert response.headers["Content-Type"] == f"{FILES[name][1]}; charset=utf-8"
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["Access-Control-Allow-Origin"] is None
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    text = response.read().decode()
    assert text
    assert "http://" not in text
    assert "https://" not in text
    connection.close()


def test_a_change_a_look_and_a_save(server: EditorServer, ask: Ask) -> None:
    path = server.session.path
    before = path.read_bytes()
    status, state = ask(server, "state")
    assert (status, state["name"], state["trainer"]) == (200, path.name, "lora")
    assert state["text"] == state["saved"] == before.decode()
    assert state["command"] == f'accelerate launch -m lora_trainer --preset "{path}"'
    changes = [
        {"do": "put", "path": ["output_dir"], "written": '"output/mine"'},
        {"do": "put", "path": ["network_dim"], "written": "[1,"},
        {"do": "put", "path": ["learning_rate"], "written": "2E-4"},
        {"do": "remove", "path": ["xformers"]},
    ]
    status, after = ask(server, "look", {"text": state["text"], "changes": changes})
    assert status == 200
    assert len(after["problems"]) == len(state["problems"]) - 1
    assert [(each["path"], each["text"]) for each in after["not_taken"]] == [
        (["network_dim"], "network_dim: no JSON yet: the file ends inside the [ of line 1; a value is missing")
    ]
    expected = before.replace(b'"output_dir": "..."', b'"output_dir": "output/mine"')
    expected = expected.replace(b'rate": 0.0002', b'rate": 2E-4').replace(b',\n  "xformers": "xformers"', b"")
    assert after["text"].encode() == expected
    assert path.read_bytes() == before
    status, saved = ask(server, "save", {"text": after["text"], "version": state["version"], "over_changes": False})
    assert status == 200
    assert path.read_bytes() == expected
    assert ask(server, "version") == (200, {"version": saved["version"]})
    status, answer = ask(server, "save", {"text": "{}", "version": state["version"], "over_changes": False})
    assert (status, answer["changed"]) == (409, True)
    assert path.read_bytes() == expected


def test_a_change_that_has_no_place_is_refused(server: EditorServer, ask: Ask) -> None:
    for change in (
        {"do": "put", "path": ["a", "b"], "written": "1"},
        {"do": "remove", "path": ["a"]},
        {"do": "x", "path": ["a"]},
    ):
        status, answer = ask(server, "look", {"text": "{}", "changes": [change]})
        assert status == 422
        assert answer["refused"].endswith("where it cannot be done; reload the page")


@pytest.mark.parametrize("trainer", ["lora", "finetune", "super_resolution", "gan", "restoration"])
def test_a_new_preset_begins_with_what_every_one_has(tmp_path: Path, serve: Serve, ask: Ask, trainer: str) -> None:
    server = serve(tmp_path / "neu ü.json")
    _, state = ask(server, "state")
    assert (state["text"], state["version"], state["broken"]) == ("", "absent", True)
    status, begun = ask(server, "begin", {"trainer": trainer})
    assert (status, begun["trainer"]) == (200, trainer)
    assert json.loads(begun["text"]) == {
        "trainer": trainer, "about": "", "output_dir": "output/neu ü", "output_name": "neu ü",
    }  # fmt: skip
    assert all(": missing; " in problem["text"] or problem["key"] for problem in begun["problems"])
    assert ask(server, "save", {"text": begun["text"], "version": "absent", "over_changes": False})[0] == 200
    assert server.session.path.read_text(encoding="utf-8") == begun["text"]
    assert ask(serve(tmp_path / "zwei.json", trainer), "state")[1]["trainer"] == trainer
    assert ask(server, "begin", {"trainer": "lroa"})[0] == 422


def test_the_same_answers_for_edits_and_reverts_of_all_presets(serve: Serve, ask: Ask, tmp_path: Path) -> None:
    server = serve(tmp_path / "p.json")
    change: Callable[[str, list[dict[str, Any]]], Any]

    def change(text: str, changes: list[dict[str, Any]]) -> Any:
        return ask(server, "look", {"text": text, "changes": changes})[1]

    for path in sorted(PDXL.parent.rglob("example.json")):
        text = path.read_bytes().decode()
        before = change(text, [])
        seed = next(each["raw"] for each in before["scopes"][0]["keys"] if each["name"] == "seed")
        edit = change(
            text,
            [{"do": "put", "path": ["seed"], "written": "77"}, {"do": "put", "path": ["log_every"], "written": "5"}],
        )
        assert edit["text"] != text
        back = [{"do": "put", "path": ["seed"], "written": seed}]
        back += [] if '"log_every"' in text else [{"do": "remove", "path": ["log_every"]}]
        given = [each["raw"] for each in before["scopes"][0]["keys"] if each["name"] == "log_every"]
        back += [{"do": "put", "path": ["log_every"], "written": raw} for raw in given]
        assert change(edit["text"], back) == before


def test_a_failure_of_the_editor_is_told_and_traced(
    server: EditorServer, ask: Ask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lora_trainer.editor.session.answer", lambda path, text: 1 // 0)
    status, answer = ask(server, "state")
    assert (status, answer) == (500, {"refused": "the editor failed at this; the terminal in which it runs says how"})
    assert "ZeroDivisionError" in capsys.readouterr().err
