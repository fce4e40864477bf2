"""Where the drawings and their names come from, and under which licences: the page that is written beside them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tools.drawings.icons import read_json

NOTO = "@iconify-json/noto"
FLAT = "@iconify-json/fluent-emoji-flat"
HIGH_CONTRAST = "@iconify-json/fluent-emoji-high-contrast"
NAMES = "emojibase-data"
OWNERS: Mapping[str, str] = {
    NOTO: "Copyright Google LLC; Apache License 2.0, https://www.apache.org/licenses/LICENSE-2.0",
    FLAT: "Copyright (c) Microsoft Corporation; MIT License",
    HIGH_CONTRAST: "Copyright (c) Microsoft Corporation; MIT License",
    NAMES: "Copyright (c) 2017-2019 Miles Johnson; MIT License. The keywords derive from the Unicode CLDR: "
    "Copyright (c) Unicode, Inc., Unicode License v3, https://www.unicode.org/license.txt",
}
USED_FOR: Mapping[str, str] = {
    NOTO: "glossy; with FLAT, by filters, sketch and watercolour",
    FLAT: "flat; with NOTO, by filters, sketch and watercolour",
    HIGH_CONTRAST: "outline, which is in no base",
    NAMES: "names, kinds and keywords in captions",
}
MIT = """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def sources_page(modules: Path, things: int, seed: int) -> str:
    """Markdown. Raises Refusal."""
    lines = [
        "# Where these pictures come from",
        "",
        f"`python -m tools.make_drawings` with seed {seed} has made them: {things} things.",
        "The drawings were changed: placed on backgrounds, tilted, given other colours, and filtered.",
        "",
        "| npm package | whose, and licence | styles |",
        "|---|---|---|",
    ]
    names = {NOTO: "noto", FLAT: "fluent-emoji-flat"}
    for package, owner in OWNERS.items():
        version = read_json(modules / package / "package.json", package)["version"]
        used = USED_FOR[package]
        for word, name in (("NOTO", names[NOTO]), ("FLAT", names[FLAT])):
            used = used.replace(word, name)
        lines.append(f"| {package} {version} | {owner} | {used} |")
    return "\n".join([*lines, "", "## The MIT License", "", MIT])
