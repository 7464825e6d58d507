"""A real browser for tests: headless Chromium and its driver, as Debian ships them."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from tests.tools import missing, require_npm_file

Theme = Literal["light", "dark"]
TOOLS: Final = Path(__file__).parent.parent / ".tools"
WAIT_S: Final = 30.0
FLAGS: Final = (
    "--headless=new",
    "--no-sandbox",  # as root in a container there is none
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en-GB",
)
_WATCH: Final = """
window.__violations = [];
window.__alerts = [];
addEventListener("securitypolicyviolation",
  (event) => window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
window.alert = (...words) => window.__alerts.push(words.join(" "));
"""


class Browser:
    """One window, and what it complained of."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver
        self._cdp("Page.addScriptToEvaluateOnNewDocument", source=_WATCH)
        self.look(1366, "light")

    def look(self, width: int, theme: Theme, *, motion: bool = True) -> None:
        """Be so wide, in a theme."""
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=800, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"},
        ]
        self._cdp("Emulation.setEmulatedMedia", features=features)

    def scripts(self, *, on: bool) -> None:
        """Run scripts, or do not."""
        self._cdp("Emulation.setScriptExecutionDisabled", value=not on)

    def open(self, url: str, *, until: str = "") -> None:
        """Go to a page, and wait until an expression in it is true."""
        self.driver.get(url)
        if until:
            self.wait(until)

    def js(self, script: str, *arguments: Any) -> Any:
        """What a function body returns."""
        return self.driver.execute_script(script, *arguments)

    def later(self, script: str, *arguments: Any) -> Any:
        """What an async function body comes to."""
        wrapped = (
            "const done = arguments[arguments.length - 1];"
            f"(async (...given) => {{ {script} }})(...arguments)"
            ".then((found) => done([found, null]), (error) => done([null, String(error)]));"
        )
        found, error = self.driver.execute_async_script(wrapped, *arguments)
        assert error is None, error
        return found

    def wait(self, expression: str, timeout_s: float = WAIT_S) -> Any:
        """Wait until an expression is true; its value."""
        waiting: WebDriverWait[webdriver.Chrome] = WebDriverWait(self.driver, timeout_s, 0.1)
        return waiting.until(lambda _: self.js(f"return ({expression})"), message=expression)

    def axe(self) -> list[str]:
        """What axe-core finds wrong with the page, in words."""
        source = require_npm_file("axe-core/axe.min.js").read_text(encoding="utf-8")
        self.js(source + "; window.axe = axe;")
        found = self.later("return (await axe.run(document)).violations")
        return [
            f"{one['id']}: {node['target']}: {node['failureSummary']}"
            for one in found
            for node in one["nodes"]
        ]

    def picture(self, path: Path, width: int, height: int) -> None:
        """The page from its top, so large, as a PNG."""
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self._cdp("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(b64decode(shot["data"]))

    def forget(self) -> None:
        """Leave the page, and forget complaints and requests so far."""
        self.open("about:blank")
        self.complaints()
        self.requests()

    def complaints(self) -> list[str]:
        """Errors and warnings of the console so far, breaches of the policy, and alerts."""
        said = [f"{one['level']}: {one['message']}" for one in self.driver.get_log("browser")]
        return [*said, *self.js("return [...window.__violations, ...window.__alerts]")]

    def requests(self) -> list[dict[str, Any]]:
        """What was asked over the network since the last time: url, status, bytes, headers."""
        asked: dict[str, dict[str, Any]] = {}
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            values, name = message["params"], message["method"]
            key = values.get("requestId", "")
            if name == "Network.requestWillBeSent":
                asked[key] = {"url": values["request"]["url"], "status": None, "bytes": 0}
            elif name == "Network.responseReceived" and key in asked:
                asked[key]["status"] = values["response"]["status"]
            elif name == "Network.loadingFinished" and key in asked:
                asked[key]["bytes"] = values["encodedDataLength"]
        return list(asked.values())

    def elsewhere(self, base: str) -> list[str]:
        """Addresses that were asked for and are not the server's."""
        own = urlsplit(base).netloc
        urls = [one["url"] for one in self.requests()]
        return [url for url in urls if urlsplit(url).netloc != own and url[:5] != "data:"]

    def _cdp(self, command: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(command, values)


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser of one's own."""
    program, driver, environment = _found(profile)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile / 'profile'}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "WARNING", "performance": "ALL"})
    service = Service(driver, env=dict(environment) or None)
    with webdriver.Chrome(options=options, service=service) as running:
        running.set_script_timeout(60)
        window = Browser(running)
        window.forget()  # what a new window loads by itself
        yield window


def _found(folder: Path) -> tuple[str, str, Mapping[str, str]]:
    """Program, driver and environment: as installed, or as unpacked by ``.ci/debian-tools``."""
    installed = shutil.which("chromium"), shutil.which("chromedriver")
    if installed[0] and installed[1]:
        return installed[0], installed[1], {}
    unpacked = (
        TOOLS / "usr" / "lib" / "chromium" / "chromium",
        TOOLS / "usr" / "bin" / "chromedriver",
    )
    if not all(path.exists() for path in unpacked):
        missing("Chromium and its driver are not installed; `.ci/debian-tools` fetches them")
    return str(unpacked[0]), str(unpacked[1]), _environment(folder)


def _environment(folder: Path) -> dict[str, str]:
    """What programs that are not where Debian installs them need to find their own parts."""
    import os

    fonts = folder / "fonts.conf"
    fonts.write_text(
        '<?xml version="1.0"?><fontconfig>'
        f"<dir>{TOOLS / 'usr/share/fonts'}</dir><cachedir>{folder / 'fonts'}</cachedir></fontconfig>"
    )
    libraries = sorted({str(path.parent) for path in (TOOLS / "usr" / "lib").glob("*/*.so*")})
    also = [str(TOOLS / "lib" / "x86_64-linux-gnu"), str(TOOLS / "lib" / "aarch64-linux-gnu")]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join([*libraries, *also]),
        "FONTCONFIG_FILE": str(fonts),
    }
