"""The report page in a real browser: loads without network or error, and sliders re-plan."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from irsplit.cli import main
from irsplit.runtime.bundle.manifest import Manifest
from tools import needs

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-sync", "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

CUT_OFF = """
return [...document.querySelectorAll("svg text")].filter((text) => {
  const box = text.getBBox();
  return box.x < 0 || box.x + box.width > text.ownerSVGElement.viewBox.baseVal.width;
}).map((text) => text.textContent);
"""
"""Texts that a figure is too narrow for."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    needs("chromium")
    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(shutil.which("chromedriver"))))
    yield driver
    driver.quit()


def opened(browser: webdriver.Chrome, folder: Path, *words: str) -> dict[str, Any]:
    """The report of the example in the browser; the data it was made from."""
    page = folder / "report.html"
    assert main(["report", str(EXAMPLE / "digits.onnx"), "-o", str(page), *words]) == 0
    assert page.stat().st_size < 200_000
    browser.get(page.as_uri())
    return json.loads(browser.find_element(By.ID, "data").get_attribute("textContent") or "")


def best(browser: webdriver.Chrome) -> str:
    return browser.find_element(By.TAG_NAME, "body").get_attribute("data-best") or ""


def test_it_loads_and_agrees_with_the_planner(
    browser: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--link", "3g", "--device", "pixel-2")
    data = opened(browser, tmp_path, *words)
    assert browser.get_log("browser") == []
    assert browser.find_element(By.TAG_NAME, "h1").text == "digits.onnx"
    assert "http" not in json.dumps(data)
    capsys.readouterr()
    assert main(["plan", str(EXAMPLE / "digits.onnx"), *words, "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)["ranked"]
    splits = [row for row in ranked if row["cut"] not in ("device only", "server only")]
    assert best(browser) in {row["cut"] for row in splits if row["value"] == splits[0]["value"]}
    assert len(browser.find_elements(By.CSS_SELECTOR, "#bars g")) == len(splits)
    assert len(browser.find_elements(By.CSS_SELECTOR, "#rejected li")) == data["rejected_count"] > 0
    reasons = [
        summary.text for summary in browser.find_elements(By.CSS_SELECTOR, "#rejected summary")
    ]
    assert (
        "5 to 7 (3 positions): a branch forks at onnx.Relu 'down/relu' and joins at onnx.Add "
        "'block1/add'"
    ) in reasons
    assert len(browser.find_elements(By.CSS_SELECTOR, "#diagram rect")) == len(data["groups"])


def test_a_slider_moved_by_keyboard_moves_the_optimum(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    opened(browser, tmp_path, "--link", "3g")
    before = best(browser)
    speed = browser.find_element(By.ID, "slider-device")
    speed.send_keys(Keys.HOME)
    for name in ("up", "down"):
        browser.find_element(By.ID, f"slider-{name}").send_keys(Keys.END)
    assert best(browser) != before
    verdict = browser.find_element(By.ID, "verdict").text
    browser.find_element(By.ID, "reset").click()
    assert best(browser) == before
    assert browser.find_element(By.ID, "verdict").text != verdict
    Select(browser.find_element(By.ID, "order")).select_by_value("value")
    rows = browser.find_elements(By.CSS_SELECTOR, "#bars g text")
    assert [row.get_attribute("class") for row in rows] == ["best"] + [""] * (len(rows) - 1)
    assert browser.get_log("browser") == []


def test_it_fits_a_phone(browser: webdriver.Chrome, tmp_path: Path) -> None:
    browser.set_window_size(390, 800)
    opened(browser, tmp_path)
    assert browser.execute_script(
        "return document.documentElement.scrollWidth <= window.innerWidth"
    )
    assert browser.execute_script(CUT_OFF) == []
    browser.set_window_size(1280, 900)


def test_names_from_a_model_are_text_not_markup(browser: webdriver.Chrome, tmp_path: Path) -> None:
    model = tmp_path / "<img src=x onerror=alert(1)>.tflite"
    model.write_bytes((EXAMPLE / "digits.tflite").read_bytes())
    assert main(["report", str(model), "-o", str(tmp_path / "report.html")]) == 0
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").text == model.name
    assert browser.find_elements(By.TAG_NAME, "img") == []


def test_baselines_and_energy(browser: webdriver.Chrome, tmp_path: Path) -> None:
    opened(browser, tmp_path)
    drawn = browser.find_element(By.ID, "bars").text
    assert "server only, raw input: 442 µs" in drawn
    assert "server only, compressed input (zstandard)" in drawn, "as in irsplit plan: an average"
    assert "How small a real input gets is not known" in browser.find_element(By.ID, "unknown").text
    assert browser.find_elements(By.ID, "slider-power"), "pixel-2 states no power"
    opened(
        browser,
        tmp_path,
        "--input",
        f"image={EXAMPLE / 'pictures' / '3.png'}",
        "--device",
        "jetson-tk1-cpu",
    )
    assert (
        "server only, compressed input (webp-lossless)" in browser.find_element(By.ID, "bars").text
    )
    assert not browser.find_elements(By.ID, "slider-power")
    assert len(browser.find_elements(By.CSS_SELECTOR, "#pareto circle")) > 2


def test_bytes_and_times_are_those_of_the_codec_and_the_width(
    browser: webdriver.Chrome, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--quantize", "int8", "--codec", "static-rans", "--link", "3g")
    opened(browser, tmp_path, *words)
    head = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#bytes th")]
    codecs = ["raw", "zstandard", "static-rans"]
    assert head == ["cut", "boundary", "lossless", "int8", "int4", "raw / input", *codecs * 3]
    assert browser.find_element(By.CSS_SELECTOR, "#bytes th.now").text == "static-rans"
    row = [cell.text for cell in browser.find_elements(By.CSS_SELECTOR, "#bytes tr.best td")]
    assert row[2:8] == ["256 B", "185 B", "148 B", "64 B", "41 B", "32 B"]
    capsys.readouterr()
    assert main(["plan", str(EXAMPLE / "digits.onnx"), *words, "--json"]) == 0
    ranked = json.loads(capsys.readouterr().out)["ranked"]
    (planned,) = (row for row in ranked if row["cut"] == best(browser))
    assert planned["value"] == min(row["value"] for row in ranked if "only" not in row["cut"])
    assert [switch["size_bytes"] for switch in planned["sent"] if switch["to"] == "server"] == [32]


def test_compile_writes_it_beside_the_manifest(browser: webdriver.Chrome, tmp_path: Path) -> None:
    words = ("compile", str(EXAMPLE / "digits.onnx"), "--cut", "bottleneck/relu", "-o")
    assert main([*words, str(tmp_path / "one"), "--device", "pixel-2", "--link", "3g"]) == 0
    data = json.loads((tmp_path / "one" / "report.json").read_text())
    assert (data["compiled"], data["link"]["name"], data["device"]) == (["11"], "3g", "pixel-2")
    assert (data["codec"], data["bits"]) == ("zstandard", 0)
    browser.get((tmp_path / "one" / "report.html").as_uri())
    assert "The bundle is cut at 11 (" in browser.find_element(By.ID, "verdict").text
    assert "11 \N{BLACK DIAMOND}" in browser.find_element(By.ID, "bars").text
    assert browser.find_elements(By.CSS_SELECTOR, "#diagram .made")
    assert browser.get_log("browser") == []
    manifest = Manifest.load(tmp_path / "one")
    assert "report.html" not in manifest.files, "it is of no side, and no patch carries it"
    assert main([*words, str(tmp_path / "two"), "--no-report"]) == 0
    assert not (tmp_path / "two" / "report.html").exists()


def test_the_report_of_a_bundle_begins_as_it_was_compiled(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle, pictures = tmp_path / "bundle", EXAMPLE / "pictures"
    words = (
        "--device",
        "jetson-tk1-cpu",
        "--link",
        "3g",
        "--limit",
        "memory=1MB",
        "--max-tensors",
        "2",
    )
    coding = ("--quantize", "int8", "--codec", "static-rans", "--calibration", str(pictures))
    assert main(["compile", str(EXAMPLE / "digits.onnx"), "-o", str(bundle), *words, *coding]) == 0
    written = json.loads((bundle / "report.json").read_text())
    capsys.readouterr()
    assert main(["report", str(bundle), "--json", "--calibration", str(pictures)]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again.pop("tensors") != written.pop("tensors"), "compile saw a real picture"
    assert again == written
    assert main(["report", str(bundle), "--json", "--link", "lte", "--quantize", "lossless"]) == 0
    changed = json.loads(capsys.readouterr().out)
    assert (changed["link"]["name"], changed["bits"]) == ("lte", 0)
    assert (changed["device"], changed["codec"]) == (written["device"], "static-rans")


def test_a_page_of_a_very_large_graph_stays_small(tmp_path: Path) -> None:
    count = 3000
    nodes = [
        helper.make_node("Relu", [f"v{index}"], [f"v{index + 1}"], f"node{index}")
        for index in range(count)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in ("v0", f"v{count}")
    ]
    opset = helper.make_opsetid("", 17)
    model = helper.make_model(
        helper.make_graph(nodes, "chain", ends[:1], ends[1:]), opset_imports=[opset], ir_version=8
    )
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "chain.onnx")
    assert (
        main(
            [
                "compile",
                str(tmp_path / "chain.onnx"),
                "--cut",
                "v1234",
                "-o",
                str(tmp_path / "bundle"),
            ]
        )
        == 0
    )
    data = json.loads((tmp_path / "bundle" / "report.json").read_text())
    assert data["legal_count"] == count - 1
    assert len(data["cuts"]) <= 202
    assert data["compiled"] == ["1234"], "the cut that was made is among them"
    assert sum(group["nodes"] for group in data["groups"]) == count
    assert (tmp_path / "bundle" / "report.html").stat().st_size < 200_000
