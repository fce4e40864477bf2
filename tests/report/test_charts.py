"""Which curves share a chart, and that the picture takes the page's colours and names nothing twice."""

from __future__ import annotations

import builtins
import math
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from lora_trainer.report.chart_groups import MAIN, MEASURED, MORE, RATES, TERMS, Chart, charts_of
from lora_trainer.report.charts import MISSING, NoPlottingError, draw
from lora_trainer.report.curves import Curve


def curves(*names: str, values: tuple[float, ...] = (1.0, 2.0)) -> dict[str, Curve]:
    """Each twice as high as the one before, so that none equals another."""
    return {name: Curve(name, (1, 2), tuple(v * 2**n for v in values)) for n, name in enumerate(names)}


def places(*names: str, measured: tuple[str, ...] = ()) -> list[tuple[str, str, list[str]]]:
    return [(chart.part, chart.title, list(chart.lines)) for chart in charts_of(curves(*names), measured)]


def test_a_lora_has_its_rates_in_one_chart() -> None:
    found = places("loss", "grad_norm", "lr/unet", "lr/text_encoder", "val/loss", "val/loss_t100", "val/loss_t900")
    assert found == [
        (MEASURED, "loss", ["all"]),
        (MEASURED, "loss by timestep", ["timestep 100", "timestep 900"]),
        (MAIN, "Loss", ["loss"]),
        (RATES, "Norm of the gradient", ["all"]),
        (RATES, "Learning rate", ["unet", "text_encoder"]),
    ]


def test_a_discriminator_has_terms_of_its_own() -> None:
    found = places("loss", "gan", "d/loss", "d/real", "d/grad_norm", "grad_norm")
    assert (MAIN, "Loss", ["loss", "d/loss"]) in found
    assert (TERMS, "Terms of the loss", ["gan"]) in found
    assert (TERMS, "Terms of d", ["real"]) in found
    assert (RATES, "Norm of the gradient", ["d", "all"]) in found


def test_a_kind_of_picture_is_a_line_of_its_metric() -> None:
    assert places("val/PSNR", "val/Rain/PSNR", "val/Rain/SSIM") == [
        (MEASURED, "PSNR", ["all", "Rain"]),
        (MEASURED, "SSIM", ["Rain"]),
    ]


def test_losses_that_are_measured_are_no_terms() -> None:
    found = places("loss", "loss/val", "loss/G_l1", measured=("loss/val",))
    assert found == [(MEASURED, "loss", ["val"]), (MAIN, "Loss", ["loss"]), (TERMS, "Terms of G", ["G_l1"])]


def test_numbers_of_a_gans_ticks_come_last() -> None:
    assert places("Timing/total_sec", "loss", "Metrics/fid", measured=("Metrics/fid",)) == [
        (MEASURED, "fid", ["fid"]),
        (MAIN, "Loss", ["loss"]),
        (MORE, "Timing", ["total_sec"]),
    ]


def test_a_total_under_a_second_name_is_left_out_and_many_lines_are_shared_out() -> None:
    both = {name: Curve(name, (1, 2), (1.0, 2.0)) for name in ("loss", "loss/G_total")}
    assert [list(chart.lines) for chart in charts_of(both)] == [["loss"]]
    many = charts_of(curves(*(f"term{n}" for n in range(11))))
    assert [(chart.title, len(chart.lines)) for chart in many] == [
        ("Terms of the loss (1)", 8),
        ("Terms of the loss (2)", 3),
    ]


def test_losses_of_very_different_size_have_a_logarithmic_height() -> None:
    wide, signed = charts_of(curves("a", "b", values=(0.01, 5.0))), charts_of(curves("a", values=(-0.01, 5.0)))
    assert (wide[0].logarithmic, signed[0].logarithmic) == (True, False)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_a_picture_is_whole_has_the_colours_of_the_page_and_marked_names(logarithmic: bool) -> None:
    values = (1.0, math.nan, 0.125, 4.0)
    chart = Chart(MAIN, "Loss", {"loss": Curve("loss", (1, 2, 3, 4), values)}, logarithmic)
    svg = draw(chart, "c7", 4)
    ElementTree.fromstring(svg)
    assert "var(--line0)" in svg
    assert not re.search(r"#0[123]0[123]0\d", svg)
    assert set(re.findall(r'id="([^"]+)"', svg)) == set(re.findall(r'id="(c7-[^"]+)"', svg))
    assert "font-family" not in svg
    assert "http" not in svg.replace("http://www.w3.org/", "")
    assert draw(chart, "c7", 4) == svg


@pytest.mark.parametrize("values", [(math.nan,), (math.inf, -math.inf), (0.0, 0.0), (5.0,), (0.001, 0.001, 0.001)])
def test_any_numbers_can_be_drawn(values: tuple[float, ...]) -> None:
    chart = Chart(MAIN, "Loss", {"loss": Curve("loss", tuple(range(1, len(values) + 1)), values)})
    ElementTree.fromstring(draw(chart, "c0", len(values)))


def test_labels_of_a_constant_can_be_told_apart() -> None:
    chart = Chart(RATES, "Learning rate", {"unet": Curve("unet", tuple(range(100)), (0.001,) * 100)})
    labels = [float(text) for text in re.findall(r'transform="[^"]*">([\d.e-]+)</text>', draw(chart, "c0", 99))]
    heights = [label for label in labels if 0 < label < 1]
    assert len(set(heights)) == len(heights) >= 3


def test_without_the_library_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NoPlottingError, match=re.escape(MISSING)):
        draw(Chart(MAIN, "Loss", curves("loss")), "c0", 2)
