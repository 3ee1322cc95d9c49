"""Drives Chromium over a server's page: `server_browser.py CHROMIUM ADDRESS FOLDER IMAGE IMAGE`; prints what it saw.

It runs in a Python of its own, that has Playwright and nothing of terrazzo.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

chromium, address, folder, first, second = sys.argv[1:]
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
NAMED = ("button", "slider", "checkbox", "combobox", "progressbar", "image")
seen: dict[str, Any] = {"problems": []}

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    strict = browser.new_page()  # under the page's own security policy, which Playwright's waiting would break
    strict.on("console", lambda message: seen["problems"].append(message.text))
    strict.on("dialog", lambda dialog: dialog.accept("secret"))
    strict.goto(address)
    strict.wait_for_selector("body[data-ready]")
    context = browser.new_context(viewport={"width": 1200, "height": 800}, bypass_csp=True, locale="en-GB")
    page = context.new_page()
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda problem: seen["problems"].append(str(problem)))
    page.on("console", lambda message: seen["problems"].append(message.text) if message.type == "error" else None)
    page.add_init_script("sessionStorage.setItem('terrazzo-token', 'secret')")
    page.goto(address)
    page.wait_for_selector("body[data-ready]")

    def labels() -> list[int]:
        return page.evaluate("Array.from(terrazzo.result.labels)")

    def view() -> list[float]:
        return page.evaluate("[terrazzo.viewer.zoom, terrazzo.viewer.x, terrazzo.viewer.y]")

    def save(button: str, name: str) -> None:
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(Path(folder) / name)

    # Several images, of which the second is opened by a key
    page.set_input_files("#files", [first, second])
    page.wait_for_function("document.querySelectorAll('#strip [data-state=done]').length === 2")
    page.wait_for_function("terrazzo.result !== null")
    seen["labels"], seen["count"] = labels(), page.inner_text("#count")
    seen["confidence"] = page.evaluate("Array.from(terrazzo.result.confidence)")
    save("#save-labels", "served.png")
    page.hover("#frame", position={"x": 100, "y": 100})
    seen["tip"] = page.inner_text("#tip")
    page.keyboard.press("PageDown")
    page.wait_for_function(f"terrazzo.result?.name === {json.dumps(Path(second).name)}")
    seen["second"] = labels()
    page.keyboard.press("PageUp")
    page.wait_for_function(f"terrazzo.result?.name === {json.dumps(Path(first).name)}")

    # Zoom, pan, side by side, labels on and off
    page.keyboard.press("+")
    page.keyboard.press("ArrowRight")
    seen["zoomed"] = view()
    page.mouse.wheel(0, -400)
    seen["wheel"] = view()
    page.keyboard.press("0")
    seen["fitted"] = view()
    page.locator("#split").fill("50")
    seen["split"] = page.evaluate("[document.getElementById('overlay').style.clipPath, !divider.hidden]")
    page.screenshot(path=Path(folder) / "split.png")
    frame = page.locator("#frame").bounding_box()
    assert frame is not None
    page.mouse.move(frame["x"] + frame["width"] / 2, frame["y"] + 60)
    page.mouse.down()
    page.mouse.move(frame["x"] + frame["width"] / 4, frame["y"] + 60, steps=4)
    page.mouse.up()
    seen["dragged"] = page.input_value("#split")
    page.locator("#split").fill("0")
    page.locator("#frame").hover()
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    seen["hidden"] = page.input_value("#opacity")
    page.keyboard.press("Space")
    seen["shown"] = page.input_value("#opacity")

    # Correcting: a stroke, a filled region, undoing, and keeping
    page.keyboard.press("c")
    page.select_option("#brush-class", "2")
    box = page.locator("#frame").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 90, steps=5)
    page.mouse.up()
    seen["stroke"] = labels()
    page.keyboard.press("Control+z")
    seen["undone"] = labels()
    page.keyboard.press("f")
    page.mouse.click(box["x"] + 4, box["y"] + 4)
    seen["filled"] = labels()
    page.screenshot(path=Path(folder) / "correcting.png")
    page.click("#keep")
    page.wait_for_function("document.getElementById('status').textContent.includes('images/')")
    seen["kept"] = page.inner_text("#status")

    # The webcam, words, names, phones
    page.click("#webcam")
    page.wait_for_function("document.getElementById('status').textContent.startsWith('webcam') && terrazzo.result")
    page.click("#webcam")
    page.select_option("#language", "zh")
    seen["chinese"] = [page.inner_text("#save-labels"), page.get_attribute("html", "lang")]
    tree = context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen["nameless"] = [
        node["role"]["value"]
        for node in tree
        if not node["ignored"] and node["role"]["value"] in NAMED and not node.get("name", {}).get("value")
    ]
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 390, "height": 800})
    seen["phone width"] = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=Path(folder) / "phone.png", full_page=True)
    browser.close()
print(json.dumps(seen))
