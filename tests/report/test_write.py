"""The page as a whole: it holds everything, asks for nothing, and shows what people wrote as they wrote it."""

from __future__ import annotations

import json
import logging
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from lora_trainer.engine.run_facts import Counts, Material, PresetKey, RunFacts, Thumbnail, read_facts
from lora_trainer.errors import Refusal
from lora_trainer.report import page, write
from lora_trainer.report.charts import MISSING, NoPlottingError
from lora_trainer.report.write import leave_report, write_report
from tools.report import main

EVIL = "\"><script>alert(1)</script>'&"
VOID = {"meta", "img", "input", "br", "option", "link", "use", "path"}


class Page(HTMLParser):
    """The tags, the ids, the addresses and the text of a page; whatever is not closed is a fault."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.scripts = 0
        self.words: list[str] = []
        self.titles: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.scripts += tag == "script"
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.addresses += [values[name] or "" for name in ("src", "href", "xlink:href") if name in values]
        self.titles += [value for name, value in attrs if name == "title" and value]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not (self.open and self.open[-1] in ("script", "style")):
            self.words.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(word for word in self.words if word)


def facts(name: str = "run") -> RunFacts:
    return RunFacts(
        output_name=name,
        trainer="lora",
        material=Material(
            f"LoRA {EVIL}",
            (("pictures", EVIL),),
            (Counts("Tags", ((EVIL, 3), ("cat", 1))),),
            (Thumbnail("data:image/webp;base64,AAAA", EVIL, 3, 2),),
            (("A1111", "Put {file} there"),),
        ),
        about=EVIL,
        changed=(PresetKey("unet_lr", "rates", EVIL, "0.1", "The rate of the UNet."),),
        inert=(("old_key", EVIL),),
        values={"unet_lr": EVIL},
        higher_is_better={"val/loss": False},
        versions=(("PyTorch", "2"),),
    )


def run_folder(folder: Path, name: str = "run", **status: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    told = {"output_name": name, "state": "finished", "step": 3, "total_steps": 3, "seed": 7, "time": 1.0, **status}
    (folder / "status.json").write_text(json.dumps(told), encoding="utf-8")
    rows = [{"step": n, "loss": 1 / n, "lr/unet": 0.1, f"term{EVIL}": float(n), "val/loss": 2.0 / n} for n in (1, 2, 3)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_a_page_holds_everything_and_asks_for_nothing(tmp_path: Path) -> None:
    folder = run_folder(tmp_path / "ö x", result="/home/anna/ö x/run.safetensors")
    facts().write(folder / "facts.json")
    (folder / "sample").mkdir()
    for step in (0, 3):
        Image.new("RGB", (8, 8)).save(folder / "sample" / f"run_{step:06d}_00_1.png")
    html = write_report(folder).read_text(encoding="utf-8")
    found = Page(html)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    assert {address.partition(":")[0][:1] for address in found.addresses} == {"d", "#"}
    assert not re.search(r"(?:src|href|url\()=?[\"']?(?:https?:)?//", html.replace("http://www.w3.org/", ""))
    assert "default-src 'none'" in html
    for said in ("Finished", "3 of 3", "fell from 1", "best 0.6667 at step 3", "Put run.safetensors there", "step 0"):
        assert said in found.text, said
    assert "/home/anna" not in html
    assert "unet_lr" in found.text
    assert "default 0.1" in found.text
    assert "The rate of the UNet." in found.titles


def test_what_people_wrote_is_shown_and_never_run(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, EVIL, state="failed", message=EVIL)
    facts(EVIL).write(folder / "facts.json")
    html = write_report(folder).read_text(encoding="utf-8")
    found = Page(html)
    assert found.scripts == 1
    assert "<script>alert" not in html
    shown = " ".join(EVIL.split())
    assert found.text.count(shown) >= 10


def test_the_best_file_is_named_where_there_is_one(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, result="run.safetensors")
    assert "was the best one" not in write_report(folder).read_text(encoding="utf-8")
    for name in ("run-best.pth", "run-best.safetensors", "another-best.safetensors"):
        (folder / name).touch()
    assert "By validation run-best.safetensors was the best one." in write_report(folder).read_text(encoding="utf-8")


def test_a_folder_of_an_older_run_has_a_report_too(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, fingerprint={"trainer": "gan"})
    found = Page(write_report(folder).read_text(encoding="utf-8"))
    assert "A training of the trainer gan" in found.text
    assert "Preset" not in found.text


def test_the_facts_of_another_run_are_not_taken(tmp_path: Path) -> None:
    facts("another").write(tmp_path / "facts.json")
    assert "LoRA" not in Page(write_report(run_folder(tmp_path)).read_text(encoding="utf-8")).text


@pytest.mark.parametrize("rows", [[], [{"step": 5, "loss": math.nan}], [{"step": n, "loss": 1.0} for n in range(3000)]])
def test_no_rows_nan_alone_and_thousands_of_rows_make_a_page(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    folder = run_folder(tmp_path)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    file = write_report(folder)
    assert Page(file.read_text(encoding="utf-8")).open == []
    assert file.stat().st_size < 100_000


def test_facts_come_back_as_they_were_and_broken_ones_are_none(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    facts().write(file)
    assert read_facts(file) == facts()
    for broken in ("", "[]", "{}", '{"output_name": 1}', file.read_text("utf-8").replace('"rows"', '"lines"')):
        file.write_text(broken, encoding="utf-8")
        assert read_facts(file) is None


def test_without_the_plotting_library_the_page_has_all_but_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def missing(*_: object) -> str:
        raise NoPlottingError(MISSING)

    monkeypatch.setattr(page, "draw", missing)
    caplog.set_level(logging.INFO, "lora_trainer")
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    leave_report(run_folder(tmp_path))
    assert f"the report has no curves: {MISSING}" in caplog.text
    assert f"report: {tmp_path / 'report.html'}" in caplog.text
    assert MISSING in Page((tmp_path / "report.html").read_text(encoding="utf-8")).text


def test_whatever_goes_wrong_at_the_end_of_a_run_is_a_line_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("lora_trainer"), "propagate", True)
    monkeypatch.setattr(write, "render", lambda *_: 1 / 0)
    leave_report(run_folder(tmp_path))
    assert "no report was written (ZeroDivisionError: division by zero)" in caplog.text
    assert not (tmp_path / "report.html").exists()


def test_the_command_makes_a_report_anew_and_refuses_other_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = run_folder(tmp_path / "a")
    assert main([str(folder)]) == 0
    assert capsys.readouterr().out.strip() == str(folder / "report.html")
    assert main([str(folder), "--output", str(tmp_path / "x.html")]) == 0
    assert (tmp_path / "x.html").read_bytes() == (folder / "report.html").read_bytes()
    assert main([str(tmp_path)]) == 2
    assert "no run is in this folder" in capsys.readouterr().err
    (folder / "status.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(Refusal, match="is not the status of a run"):
        write_report(folder)
