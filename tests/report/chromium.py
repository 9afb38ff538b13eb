"""Headless Chromium driven over WebDriver's HTTP protocol, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

ENTER, TAB, SPACE = "\ue007", "\ue004", " "
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def missing() -> str | None:
    """Why no browser can be driven here, or None."""
    for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",)):
        if not any(map(shutil.which, names)):
            return f"no {names[0]} found; on Debian: apt-get install chromium chromium-driver"
    return None


class Browser:
    """One window; files only: every other address is refused by a proxy that isn't there."""

    def __init__(self, folder: Path) -> None:
        self._log = open(folder / "chromedriver.txt", "w+")  # noqa: SIM115 - as long as the browser
        self._driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=self._log, stderr=subprocess.STDOUT)
        self._session = ""
        try:
            self._root = f"http://127.0.0.1:{self._port()}/session"
            arguments = ["--headless=new", "--disable-gpu", "--no-first-run", "--proxy-server=127.0.0.1:9",
                         f"--user-data-dir={folder / 'profile'}", "--hide-scrollbars"]  # fmt: skip
            if hasattr(os, "geteuid") and os.geteuid() == 0:
                arguments.append("--no-sandbox")  # Chromium's sandbox doesn't start for root
            binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
            wanted = {
                "browserName": "chrome",
                "goog:chromeOptions": {"binary": binary, "args": arguments},
                "goog:loggingPrefs": {"browser": "ALL"},
                "unhandledPromptBehavior": "ignore",
            }
            self._session = self._call("", {"capabilities": {"alwaysMatch": wanted}}, base=True)["sessionId"]
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._session:
            self._send("DELETE", f"{self._root}/{self._session}", None)
        self._driver.terminate()
        self._driver.wait(20)
        self._log.close()

    def open(self, path: Path, width: int = 1280, height: int = 900, dark: bool = False, script: bool = True) -> None:
        """Load a file at a width in CSS pixels; what was logged before is forgotten."""
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.cdp("Emulation.setEmulatedMedia", media="", features=[scheme])
        self.cdp("Emulation.setScriptExecutionDisabled", value=not script)
        self.logged()
        self._call("/url", {"url": path.resolve().as_uri()})

    def logged(self) -> list[str]:
        """What the console said since the last call: errors, warnings, refusals of the policy."""
        return [f"{entry['level']}: {entry['message']}" for entry in self._call("/se/log", {"type": "browser"})]

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a function body returns in the page."""
        return self._call("/execute/sync", {"script": script, "args": list(arguments)})

    def press(self, selector: str, keys: str) -> None:
        """Type keys into an element, as a keyboard would."""
        found = self._call("/element", {"using": "css selector", "value": selector})[_ELEMENT]
        self._call(f"/element/{found}/value", {"text": keys})

    def alert(self) -> bool:
        """Whether a dialog is open."""
        try:
            self._send("GET", f"{self._root}/{self._session}/alert/text", None)
        except urllib.error.HTTPError:
            return False
        return True

    def cdp(self, command: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol."""
        return self._call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._send("GET", f"{self._root}/{self._session}/screenshot", None)))

    def printed(self) -> bytes:
        """The page as PDF."""
        return base64.b64decode(self.cdp("Page.printToPDF", preferCSSPageSize=True)["data"])

    def _port(self) -> int:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = re.search(r"started successfully on port (\d+)", Path(self._log.name).read_text())
            if found:
                return int(found[1])
            time.sleep(0.05)
        raise RuntimeError(f"chromedriver did not start: {Path(self._log.name).read_text()}")

    def _call(self, path: str, body: dict[str, Any], base: bool = False) -> Any:
        return self._send("POST", self._root if base else f"{self._root}/{self._session}{path}", body)

    def _send(self, method: str, address: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=120) as answer:
            return json.loads(answer.read())["value"]
