"""The command line of the editor: quick, without torch, ended by Ctrl-C, and one sentence for what is wrong."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
import webbrowser
from pathlib import Path

import pytest

from lora_trainer.config.trainers import TRAINERS
from lora_trainer.editor.__main__ import _open, main, parser
from tests.docs.test_readme import modules_of

REPOSITORY = Path(__file__).resolve().parents[2]

# Serves until the page and every kind of answer was asked for, then says what was loaded.
WITHOUT_TORCH = """
import re, sys, threading, urllib.request
from pathlib import Path
from lora_trainer.editor.document import Document
from lora_trainer.editor.server import EditorServer
from lora_trainer.editor.session import Session
import lora_trainer.editor.__main__
server = EditorServer(Session(Document(Path("presets/pdxl.json"))), "t")
threading.Thread(target=server.serve_forever, daemon=True).start()
for name in ("", "state", "form/gan", "version"):
    urllib.request.urlopen(server.address + name).read()
print("heavy:", sorted({"torch", "numpy", "diffusers", "transformers", "jinja2"} & set(sys.modules)))
"""


def test_the_page_does_without_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH], cwd=REPOSITORY, capture_output=True, text=True, encoding="utf-8"
    )
    assert done.stdout == "heavy: []\n", done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a Windows console sends Ctrl-C to every process in it")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_without_a_word(tmp_path: Path, number: signal.Signals) -> None:
    path = tmp_path / "neu ü.json"
    command = [sys.executable, "-m", "lora_trainer.editor", str(path), "--trainer", "gan", "--no-browser"]
    with subprocess.Popen(
        command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8"
    ) as editor:
        assert editor.stdout is not None
        line = editor.stdout.readline()
        found = re.fullmatch(
            rf"The editor of {path}, which does not exist yet: (http://127\.0\.0\.1:\d+/\S{{32}}/)\n", line
        )
        assert found
        assert editor.stdout.readline() == "Ctrl-C ends it.\n"
        with urllib.request.urlopen(found[1], timeout=5) as page:
            assert b"<title>Preset editor</title>" in page.read()
        editor.send_signal(number)
        rest, errors = editor.communicate(timeout=10)
    assert (rest, errors, editor.returncode) == ("", "", 0)
    assert not path.exists()


def test_a_taken_port_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main([str(tmp_path / "p.json"), "--no-browser", "--port", str(port)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"--port {port}: cannot be used on 127.0.0.1 (")
    assert said.err.endswith("); give another one or none\n")
    assert said.err.count("\n") == 1
    assert main([str(tmp_path / "p.json"), "--no-browser", "--port", "70000"]) == 2
    assert "a port is a number from 0 to 65535" in capsys.readouterr().err


def test_what_cannot_be_edited_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b"{}")
    wide = tmp_path / "wide.json"
    wide.write_bytes("{}".encode("utf-16"))
    for arguments, words in {
        (str(tmp_path),): "this is a folder; name the .json file in it",
        (str(tmp_path / "no" / "p.json"),): "there is no folder",
        (str(path), "--trainer", "gan"): "is there already, and --trainer is for a new file; leave it out",
        (str(tmp_path / "new.json"), "--trainer", "gna"): "did you mean gan?",
        (str(wide),): "the file is UTF-16; save it as UTF-8",
    }.items():
        assert main([*arguments, "--no-browser"]) == 2
        assert words in capsys.readouterr().err


def test_the_commands_of_the_documentation_are_right() -> None:
    documented = modules_of("lora_trainer.editor")
    assert len(documented) > 2
    for words in documented:
        options = parser().parse_args(words)
        assert options.trainer in TRAINERS if options.trainer else (REPOSITORY / options.file).is_file()


@pytest.mark.parametrize("taken", [True, False])
def test_a_browser_of_the_terminal_is_not_opened(monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    opened: list[str] = []
    kind = webbrowser.BackgroundBrowser if taken else webbrowser.GenericBrowser
    browser = kind("a-browser")
    monkeypatch.setattr(browser, "open", opened.append)
    monkeypatch.setattr(webbrowser, "get", lambda: browser)
    _open("http://127.0.0.1:1/door/")
    assert opened == (["http://127.0.0.1:1/door/"] if taken else [])
