"""The command line: `python -m lora_trainer.editor presets/pdxl.json` opens a preset in the browser."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from lora_trainer.errors import Refusal

# Nothing here may import torch: the page is there in a second, and its plan is made by another process.


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 when the person ended it, 2 for what the person can mend."""
    options = parser().parse_args(arguments)
    try:
        serve(Path(options.file), options.trainer, options.port, with_browser=not options.no_browser)
    except Refusal as refusal:
        for problem in refusal.problems:
            print(problem, file=sys.stderr)  # noqa: T201 - the command line's own voice
        return refusal.exit_status
    return 0


def serve(file: Path, trainer: str, port: int, *, with_browser: bool) -> None:
    """Answer until Ctrl-C. Raises Refusal."""
    from lora_trainer.config.trainers import trainer_named
    from lora_trainer.editor.document import Document
    from lora_trainer.editor.server import ADDRESS, EditorServer
    from lora_trainer.editor.session import Session

    document = Document(file)
    if not file.parent.is_dir():
        raise Refusal(f"{file}: there is no folder {file.parent}; make it first")
    if trainer:
        trainer_named(trainer)
        if file.exists():
            raise Refusal(f"{file}: is there already, and --trainer is for a new file; leave it out")
    document.read()  # what cannot be read is told here
    try:
        server = EditorServer(Session(document, trainer), secrets.token_urlsafe(24), port)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a port is a number from 0 to 65535"
        raise Refusal(f"--port {port}: cannot be used on {ADDRESS} ({reason}); give another one or none") from None
    new = "" if file.exists() else ", which does not exist yet"
    print(f"The editor of {file}{new}: {server.address}\nCtrl-C ends it.", flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, _interrupt)
    if with_browser:
        threading.Thread(target=_open, args=(server.address_for_once,), daemon=True).start()
    try:
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
    finally:
        server.end_plan()
        server.server_close()


def _open(address: str) -> None:
    with contextlib.suppress(webbrowser.Error):
        browser = webbrowser.get()
        if type(browser) is not webbrowser.GenericBrowser:  # such as lynx, which would take the terminal
            browser.open(address)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(
        prog="lora_trainer.editor", description="Read, change, check and save a preset in the browser."
    )
    found.add_argument("file", metavar="FILE", help="the preset; one that does not exist yet is begun")
    found.add_argument("--trainer", metavar="NAME", default="", help="what a new preset is for")
    found.add_argument("--port", type=int, default=0, metavar="N", help="where to listen; without it a free port")
    found.add_argument("--no-browser", action="store_true", help="only print the address")
    return found


if __name__ == "__main__":
    sys.exit(main())
