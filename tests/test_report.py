"""The report page in a real browser: it loads without a network or an error, and re-plans when a slider moves."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from irsplit.cli import main

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits"
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
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
    assert len(browser.find_elements(By.CSS_SELECTOR, "#rejected details")) == data["rejected_count"] > 0
    assert len(browser.find_elements(By.CSS_SELECTOR, "#diagram rect")) == len(data["groups"])


def test_a_slider_moved_by_keyboard_moves_the_optimum(browser: webdriver.Chrome, tmp_path: Path) -> None:
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
    assert browser.find_element(By.CSS_SELECTOR, "#bars g").get_attribute("class") == "best"
    assert browser.get_log("browser") == []


def test_it_fits_a_phone(browser: webdriver.Chrome, tmp_path: Path) -> None:
    browser.set_window_size(390, 800)
    opened(browser, tmp_path)
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_names_from_a_model_are_text_not_markup(browser: webdriver.Chrome, tmp_path: Path) -> None:
    model = tmp_path / "<img src=x onerror=alert(1)>.tflite"
    model.write_bytes((EXAMPLE / "digits.tflite").read_bytes())
    assert main(["report", str(model), "-o", str(tmp_path / "report.html")]) == 0
    browser.get((tmp_path / "report.html").as_uri())
    assert browser.find_element(By.TAG_NAME, "h1").text == model.name
    assert browser.find_elements(By.TAG_NAME, "img") == []
