"""A headless Chromium that keeps account of its requests and its console, for the tests of pages."""

import base64
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
)


def _why_not() -> str | None:
    if find_spec("selenium") is None:
        return "selenium is not installed: pip install -e '.[browser]'"
    if not (any(map(shutil.which, BROWSERS)) and shutil.which("chromedriver")):
        return "no chromium with its chromedriver is installed (Debian: apt install chromium chromium-driver)"
    return None


NO_BROWSER = _why_not()


@contextmanager
def open_browser() -> Iterator["Browser"]:
    """Start the browser, and end it with the block."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = next(path for name in BROWSERS if (path := shutil.which(name)))
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


class Browser:
    def __init__(self, driver: Any) -> None:
        self.driver = driver
        self.events: list[dict] = []
        self.resize(1280)

    def open(self, url: str) -> None:
        """Load a page; what was logged before is forgotten."""
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.events = []
        self.driver.get(url)

    def run(self, script: str) -> Any:
        """What a script of the test's own returns; the page's policy does not bind it."""
        return self.driver.execute_script(script)

    def type(self, selector: str, text: str, seconds: float = 0.25) -> None:
        """Put a text into a field as if pasted, and wait until the page has taken it up."""
        script = (
            "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
            "field.dispatchEvent(new Event('input', {bubbles: true}))"
        )
        self.driver.execute_script(script, selector, text)
        time.sleep(seconds)

    def choose(self, place: int, option: str) -> None:
        """Choose an option, by its text, of the page's select elements' place-th."""
        from selenium.webdriver.support.ui import Select

        Select(self.driver.find_elements("css selector", "select")[place]).select_by_visible_text(option)

    def press(self, element: str, key: str) -> None:
        """Focus the element that an expression stands for, and press a key."""
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        self.run(f"{element}.focus()")
        ActionChains(self.driver).send_keys(getattr(Keys, key.upper())).perform()

    def requests(self) -> list[str]:
        """The address of everything that the page has asked for."""
        return [event["request"]["url"] for event in self._network("Network.requestWillBeSent")]

    def answered(self) -> list[str]:
        """Of these, what was let through to a network and had an answer."""
        return [event["response"]["url"] for event in self._network("Network.responseReceived")]

    def errors(self) -> list[str]:
        """What the console shows of warnings and errors."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def resize(self, width: int) -> None:
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    @contextmanager
    def printing(self) -> Iterator[None]:
        """Show the page as if it were printed."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})

    @contextmanager
    def without_scripts(self) -> Iterator[None]:
        self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        try:
            yield
        finally:
            self.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})

    def pdf(self) -> bytes:
        return base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", {})["data"])

    def _network(self, method: str) -> list[dict]:
        log = self.driver.get_log("performance")  # what is read is gone from the log
        self.events += [json.loads(entry["message"])["message"] for entry in log]
        return [event["params"] for event in self.events if event["method"] == method]
