"""The page in a real browser: what a person sees, types and saves."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lora_trainer.editor.answers import answer
from lora_trainer.editor.form import form
from lora_trainer.editor.server import EditorServer
from tests.conftest import PRESETS
from tests.editor.conftest import Serve

SHIPPED = Path(__file__).resolve().parents[2] / "presets"
BROWSER = next((found for name in ("chromium", "google-chrome", "chrome") if (found := shutil.which(name))), "")
DRIVER = shutil.which("chromedriver") or ""
WAIT_S = 15.0

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
pytestmark = pytest.mark.skipif(not (BROWSER and DRIVER), reason="there is no Chromium with its chromedriver")


class Page:
    """A tab with the editor in it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, server: EditorServer) -> None:
        self.driver.get(server.address)
        self.until(lambda: self.text("#state") not in ("Loading", ""))

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)).strip()

    def click(self, selector: str) -> None:
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def click_word(self, selector: str, word: str) -> None:
        """The button with these words."""
        found = [each for each in self.driver.find_elements("css selector", f"{selector} button") if word in each.text]
        self.run("arguments[0].scrollIntoView({block: 'center'})", found[0])
        found[0].click()

    def type(self, key: str, text: str) -> None:
        field = self.find(f"#field-{key}")
        self.run("arguments[0].scrollIntoView({block: 'center'})", field)
        field.click()
        self.run("arguments[0].select()", field)
        field.send_keys(text)

    def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + WAIT_S
        while not true():
            assert time.monotonic() < end, self.text("#next")
            time.sleep(0.03)

    def until_text(self, selector: str, text: str) -> None:
        self.until(lambda: self.text(selector) == text)


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    from selenium import webdriver
    from selenium.common.exceptions import SessionNotCreatedException
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        made = webdriver.Chrome(options=options, service=Service(DRIVER))
    except SessionNotCreatedException as error:
        pytest.skip(f"{DRIVER} and {BROWSER} do not go together: {error.msg}")
    yield made
    made.quit()


@pytest.fixture
def page(driver: Any) -> Iterator[Page]:
    """A page in light colours at 1280 px; at the end nothing may have gone wrong in it."""
    screen = {"width": 1280, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    yield Page(driver)
    told = [each["message"] for each in driver.get_log("browser") if each["level"] in ("SEVERE", "WARNING")]
    assert [each for each in told if "status of 409" not in each] == []  # the answer to a save over another's changes
    driver.execute_cdp_cmd("Page.navigate", {"url": "about:blank"})
    if driver.execute_script("return 1") != 1:  # an unsaved page asks before it goes
        driver.switch_to.alert.accept()


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def made(name: str) -> Path:
        return Path(shutil.copy(SHIPPED / name, tmp_path / f"mein ü {Path(name).name}"))

    return made


def test_from_four_problems_to_a_saved_preset(page: Page, serve: Serve, copy: Callable[[str], Path]) -> None:
    path = copy("pdxl.json")
    before = path.read_bytes()
    page.open(serve(path))
    assert page.text("#state") == "4 problems"
    assert page.text("#what") == "A preset for training a LoRA"
    assert page.text("#problems li").startswith("output_dir: still the placeholder ...; write it here")
    page.click("#problems button")
    assert page.run("return document.activeElement.id") == "field-output_dir"
    page.driver.switch_to.active_element.clear()
    values = {"output_dir": "output/mine", "output_name": "mine", "train_data_dir": "C:\\meine Bilder"}
    for key, value in values.items():
        page.type(key, value)
    page.until_text("#state", "1 problem")
    page.type("pretrained_model_name_or_path", "models/xl.safetensors")
    page.until_text("#state", "Fine")
    assert page.text("#next-title") == "The preset is fine"
    assert path.read_bytes() == before
    assert page.run("return document.title").startswith("* ")
    asks = "const leaving = new Event('beforeunload', {cancelable: true}); return !window.dispatchEvent(leaving)"
    assert page.run(asks)
    page.click("#save")
    page.until_text("#save", "Saved")
    expected = before.decode()
    for key, value in {**values, "pretrained_model_name_or_path": "models/xl.safetensors"}.items():
        expected = expected.replace(f'"{key}": "..."', f'"{key}": {json.dumps(value)}')
    assert path.read_bytes() == expected.encode()
    assert not page.run(asks)


def test_the_same_errors_as_one_types_and_a_way_back(page: Page, serve: Serve, copy: Callable[[str], Path]) -> None:
    path = copy("gan/example.json")
    before = path.read_text(encoding="utf-8")
    page.open(serve(path))
    page.type("log_every", "often")
    page.until_text("#field-log_every-said", 'log_every: found "often"; write a whole number from 1 upwards')
    assert page.find("#field-log_every").get_attribute("aria-invalid") == "true"
    page.type("log_every", "12")
    page.until(lambda: "unsaved" in page.text("#key-log_every .tags"))
    page.until_text("#state", "Fine")
    assert '"log_every": 12,' in page.run("return document.getElementById('text').value")
    while page.run("return document.getElementById('text').value") != before:
        page.click("#undo")
        time.sleep(0.1)
    assert page.text("#save") == "Saved"
    assert not page.find("#redo").get_attribute("disabled")
    while page.find("#redo").is_enabled():
        page.click("#redo")
        time.sleep(0.1)
    assert '"log_every": 12,' in page.run("return document.getElementById('text').value")


def test_json_that_is_not_finished_waits(page: Page, serve: Serve, copy: Callable[[str], Path]) -> None:
    path = copy("super_resolution/real_esrgan.json")
    before = path.read_text(encoding="utf-8")
    page.open(serve(path))
    page.type("optim_d", '{"type": "Lion"')
    page.until(lambda: "optim_d: no JSON yet: the file ends inside the {" in page.text("#field-optim_d-said"))
    page.type("seed", "5")
    page.until(lambda: "unsaved" in page.text("#key-seed .tags"))
    assert page.find("#field-optim_d").get_attribute("value") == '{"type": "Lion"'
    assert not page.find("#save").is_enabled()
    page.click_word("#key-optim_d .facts", "Back to what is written")
    page.until(lambda: page.find("#save").is_enabled())
    assert json.loads(page.find("#field-optim_d").get_attribute("value")) == json.loads(before)["optim_d"]
    page.click("#save")
    page.until_text("#save", "Saved")
    page.type("optim_d", '{"type": "Lion", "lr": 1e-5}')
    page.until(lambda: page.find("#save").is_enabled())
    page.click("#save")
    page.until_text("#save", "Saved")
    assert '"optim_d": {"type": "Lion", "lr": 1e-5}' in path.read_text(encoding="utf-8")


def test_search_filters_and_unknown_keys(page: Page, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    keys = {"trainer": "super_resolution", "output_dir": "o", "output_name": "o", "network_g": {"type": "span"}}
    keys |= {"dataroot_gt": ["a"], "total_iter": 9}
    path.write_text(json.dumps({**keys, "scael": 2, "val_freq": 7}, indent=1), encoding="utf-8")
    page.open(serve(path))
    shown = "return [...document.querySelectorAll('.key:not([hidden])')].map((each) => each.id)"
    page.find("#search").send_keys("jpeg range")
    assert page.run(shown) == ["key-jpeg_range", "key-jpeg_range2"]
    page.find("#search").clear()
    page.run("const f = document.getElementById('filter'); f.value = 'problems'; f.dispatchEvent(new Event('change'))")
    assert page.run(shown) == ["key-scael"]
    page.click("#next-problem")
    assert page.run("return document.activeElement.id") == "field-scael"
    page.run("const f = document.getElementById('filter'); f.value = 'all'; f.dispatchEvent(new Event('change'))")
    page.type("scale", "3")
    page.until(lambda: page.text("#key-scael .facts") == "Remove")
    page.click_word("#key-scale .facts", "Back to 4")
    page.until(lambda: "Rename to scale" in page.text("#key-scael .facts"))
    page.click_word("#key-scael", "Rename to scale")
    page.until_text("#state", "Fine")
    page.run("const f = document.getElementById('filter'); f.value = 'set'; f.dispatchEvent(new Event('change'))")
    assert len(page.run(shown)) == 8
    assert "without effect" in page.text("#key-val_freq .said")
    page.click_word("#key-scale .facts", "Back to 4")
    page.until(lambda: "key-scale" not in page.run(shown))
    page.click("#save")
    page.until_text("#save", "Saved")
    assert path.read_text(encoding="utf-8") == json.dumps({**keys, "val_freq": 7}, indent=1)


def test_stages_fields_and_texts(page: Page, serve: Serve, copy: Callable[[str], Path]) -> None:
    path = copy("super_resolution/span_recipe.json")
    before = path.read_text(encoding="utf-8")
    page.open(serve(path))
    page.click_word("#stages", "2. 4x")
    assert page.find("#field-scale").get_attribute("value") == "4"
    assert "shared" in page.text("#key-lq_size .tags")
    page.type("lq_size", "48")
    page.type("jpeg_range", "50, 95")
    page.click("#field-use_hflip")
    page.until(lambda: "unsaved" in page.text("#key-use_hflip .tags"))
    page.click("#save")
    page.until_text("#save", "Saved")
    stages = json.loads(path.read_text(encoding="utf-8"))["stages"]
    assert (stages[1]["lq_size"], stages[1]["jpeg_range"], stages[1]["use_hflip"]) == (48, [50, 95], False)
    ways = {"lq_size": "Back to the shared value", "use_hflip": "Back to the shared value", "jpeg_range": "Back to"}
    for key, word in ways.items():
        page.click_word(f"#key-{key} .facts", word)
        page.until(lambda key=key: "unsaved" in page.text(f"#key-{key} .tags"))
    page.click("#save")
    page.until_text("#save", "Saved")
    assert path.read_text(encoding="utf-8") == before


def test_a_new_file_and_one_that_another_program_changes(page: Page, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "neu.json"
    page.open(serve(path))
    assert page.text("#state") == "New"
    page.click_word("#trainers", "GAN")
    page.until(lambda: "problem" in page.text("#state"))
    page.click("#save")
    page.until_text("#save", "Saved")
    path.write_text('{"trainer": "gan", "theirs": 1}', encoding="utf-8")
    page.type("output_name", "ours")
    page.until(lambda: page.text("#save") == "Save")
    page.click("#save")
    page.until(lambda: "was changed by another program" in page.text("#trouble"))
    assert json.loads(path.read_text(encoding="utf-8")) == {"trainer": "gan", "theirs": 1}
    page.click_word("#trouble", "Load the file")
    page.until(lambda: bool(page.driver.find_elements("css selector", "#key-theirs")))
    assert page.text("#save") == "Saved"
    path.write_text("{}", encoding="utf-8")
    page.run("window.dispatchEvent(new Event('focus'))")
    page.until(lambda: "was changed by another program" in page.text("#trouble"))
    page.click_word("#trouble", "Keep what is here")
    page.click("#save")
    page.until_text("#save", "Saved")
    assert json.loads(path.read_text(encoding="utf-8")) == {"trainer": "gan", "theirs": 1}


def test_an_editor_that_was_ended_and_one_that_came_back(page: Page, serve: Serve, copy: Callable[[str], Path]) -> None:
    server = serve(copy("gan/example.json"))
    page.open(server)
    page.run("window.fetchAsItIs = window.fetch; window.fetch = () => Promise.reject(new TypeError('Failed to fetch'))")
    page.type("seed", "123")
    page.until(lambda: page.text("#trouble").startswith("The editor does not answer; it was probably ended"))
    assert page.find("#field-seed").get_attribute("value") == "123"
    page.run("window.fetch = window.fetchAsItIs")
    page.type("kimg", "7")
    page.until(lambda: page.text("#trouble") == "")
    text = page.run("return document.getElementById('text').value")
    assert '"seed": 123' in text
    assert '"kimg": 7' in text


def test_what_is_no_json_is_mended_as_text(page: Page, serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(b'{\r\n "trainer": "gan",\r\n "output_dir": out\r\n}\r\n')
    page.open(serve(path))
    assert page.text("#state") == "No JSON yet"
    assert page.text("#problems") == 'found out; text goes in double quotes: "..." line 3'
    field = page.find("#text")
    field.clear()
    field.send_keys('{\n"trainer": "gan",\n"output_dir": "out"\n}')
    page.until(lambda: page.text("#what") == "A preset for training a GAN")
    page.click("#save")
    page.until_text("#save", "Saved")
    assert path.read_bytes() == b'{\r\n"trainer": "gan",\r\n"output_dir": "out"\r\n}'


def test_the_plan_comes_with_its_lines(page: Page, serve: Serve, tmp_path: Path) -> None:
    """The preset on the page is fine; the one that is planned says what is wrong before torch is loaded."""
    path = tmp_path / "p.json"
    shutil.copy(SHIPPED / "gan" / "example.json", path)
    page.open(serve(path))
    assert page.text("#plan") == "Make the plan"
    path.write_text('{"trainer": "gan", "oops": 1}', encoding="utf-8")
    page.click("#plan")
    page.until_text("#plan-title", "The preset, the model or the data need mending first.")
    assert "p.json:1:20 oops: unknown key" in page.text("#plan-lines")


TYPED = """
const [cases, done] = arguments;
import("./inputs.js").then(({SHOWN, WRITTEN}) => done(cases.map(([kind, raw, typed]) => {
  const shown = raw === null ? "" : SHOWN[kind](raw);
  return [shown, WRITTEN[kind](typed ?? shown, raw ?? undefined)];
})), (error) => done(String(error)));
"""
FIELDS = {"secret": "text", "suggestions": "text"}  # typed as another kind is


def test_what_is_typed_and_what_is_written(page: Page, serve: Serve, tmp_path: Path) -> None:
    page.open(serve(tmp_path / "p.json"))
    cases = [
        ("number", "1e-4", "5E-05", "1e-4", "5E-05"),
        ("number", '"75"', "150", "75", '"150"'),  # text stays text
        ("number", '""', "3", "", "3"),
        ("number", None, "-0.5", "", "-0.5"),
        ("number", "8", ".5", "8", '".5"'),  # no JSON number, but the reader knows what is meant
        ("number", "8", "viel", "8", '"viel"'),
        ("text", '"1024,1024"', "512", "1024,1024", '"512"'),
        ("text", "512", "768", "512", "768"),
        ("text", "[512, 768]", "[512, 512]", "[512, 768]", "[512, 512]"),
        ("text", "null", "a", "", '"a"'),
        ("text", '"a"', 'C:\\neu "ä"', "a", '"C:\\\\neu \\"ä\\""'),
        ("lines", '["a", "b"]', "a\n\n c ", "a\nb", '["a", "c"]'),
        ("lines", '"a"', "b", "a", '"b"'),
        ("lines", '"a"', "a\nb", "a", '["a", "b"]'),
        ("lines", None, "a", "", '["a"]'),
        ("numbers", "[0.40, 1e0]", "0.5, 2", "0.40, 1e0", "[0.5, 2]"),
        ("numbers", "[1]", "[1, 2]", "1", "[1, 2]"),
        ("word", "null", "auto", "", '"auto"'),
        ("word", "8.2", "0.5", "8.2", "0.5"),
        ("word", '"none"', "a, b", "none", '"a, b"'),
        ("json", '{\n    "a": 1\n  }', '{\n  "a": 2\n}', '{\n  "a": 1\n}', '{\n    "a": 2\n  }'),
        ("json", "{}", "", "{}", '""'),
    ]
    page.driver.set_script_timeout(WAIT_S)
    found = page.driver.execute_async_script(TYPED, [case[:3] for case in cases])
    assert found == [list(case[3:]) for case in cases]


def test_a_field_that_is_only_looked_at_gives_the_same_value(page: Page, serve: Serve, tmp_path: Path) -> None:
    page.open(serve(tmp_path / "p.json"))
    cases = []
    for path in PRESETS:
        said: Any = answer(path, path.read_text(encoding="utf-8"))
        made: Any = form(said["trainer"])
        kinds = {key["name"]: key["input"] for group in made["groups"] for key in group["keys"]}
        for scope in said["scopes"]:
            given = [(kinds[key["name"]], key["raw"]) for key in scope["keys"] if key["name"] in kinds]
            cases += [(FIELDS.get(kind, kind), raw, None) for kind, raw in given if kind not in ("switch", "choice")]
    found = page.driver.execute_async_script(TYPED, cases)
    differing = [
        (case, now) for case, (_, now) in zip(cases, found, strict=True) if json.loads(now) != json.loads(case[1])
    ]
    assert differing == []
    assert len(cases) > 1000


@pytest.mark.parametrize("name", ["pdxl.json", "super_resolution/span_recipe.json", "finetune/sd15_512.json"])
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off(page: Page, serve: Serve, copy: Callable[[str], Path], name: str, width: int) -> None:
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
    page.open(serve(copy(name)))
    assert page.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth") == 0
    wide = """return [...document.querySelectorAll('button, .tag, label, h1, h2, p, code, select')].filter((each) =>
      !each.closest('.unseen, pre') && each.scrollWidth > each.clientWidth + 1 && each.clientWidth > 0
      && getComputedStyle(each).display !== 'inline').map((each) => each.outerHTML.slice(0, 80))"""
    assert page.run(wide) == []
    nameless = """return [...document.querySelectorAll('input, select, textarea, button')].filter((each) =>
      !(each.labels?.length || each.textContent || each.ariaLabel)).map((each) => each.outerHTML)"""
    assert page.run(nameless) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read(page: Page, serve: Serve, copy: Callable[[str], Path], scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    page.open(serve(copy("pdxl.json")))
    assert page.run(CONTRAST) == []


# Text against what is behind it, as WCAG counts: 4.5 to 1. Colours are painted to know what they are.
CONTRAST = """
const canvas = new OffscreenCanvas(1, 1).getContext('2d', {willReadFrequently: true});
const paint = (colours) => {
  for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
  return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const light = (rgb) => {
  const [r, g, b] = rgb.map((each) => (each /= 255) <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const found = [];
  for (let each = element; each; each = each.parentElement) found.unshift(getComputedStyle(each).backgroundColor);
  return found;
};
const worse = new Set();
for (const element of document.querySelectorAll('body *')) {
  const says = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
  if (!(says || element.value) || !element.offsetParent) continue;
  if (element.closest(':disabled, .unseen, noscript, option')) continue;
  const grounds = behind(element);
  const [a, b] = [light(paint([...grounds, getComputedStyle(element).color])), light(paint(grounds))];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (ratio < 4.5) worse.add(`${element.tagName}.${element.className} ${ratio.toFixed(2)}`);
}
return [...worse];
"""
