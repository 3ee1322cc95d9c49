"""Drives Chromium over a page: `browser.py CHROMIUM PAGE FOLDER IMAGE IMAGE`; prints what it saw as JSON.

It runs in a Python of its own, that has Playwright and nothing of terrazzo.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

chromium, page_file, folder, first, second = sys.argv[1:]
DROP = """([text, type]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], type + ".png", { type: "image/png" }));
  const event = type === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
  document.body.dispatchEvent(event);
}"""
PAINTED = """() => {
  const overlay = document.getElementById("overlay");
  const pixels = overlay.getContext("2d").getImageData(0, 0, overlay.width, overlay.height).data;
  let count = 0;
  for (let index = 3; index < pixels.length; index += 4) count += pixels[index] > 0;
  return count;
}"""
seen: dict[str, object] = {"problems": []}

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(
        executable_path=chromium,
        args=["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
    )
    context = browser.new_context(viewport={"width": 1200, "height": 800}, offline=True)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda problem: seen["problems"].append(str(problem)))  # type: ignore[attr-defined]
    page.goto(Path(page_file).as_uri())
    page.wait_for_selector("body[data-ready]")

    def show(name: str, action: object) -> None:
        """Do what opens an image, and wait for its result."""
        action()  # type: ignore[operator]
        page.wait_for_function(f"window.terrazzo.result?.name === {json.dumps(name)}")

    def save(button: str, name: str) -> None:
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(Path(folder) / name)

    def set_range(selector: str, value: int) -> None:
        page.locator(selector).fill(str(value))

    # An image, its result and its files
    show(Path(first).name, lambda: page.set_input_files("#files", [first, second]))
    seen["labels"] = page.evaluate("Array.from(terrazzo.result.labels)")
    seen["confidence"] = page.evaluate("Array.from(terrazzo.result.confidence)")
    seen["shares"] = page.evaluate(
        "[...document.querySelectorAll('#legend li')].map((item) => Number(item.dataset.share))"
    )
    save("#save-labels", "labels.png")
    save("#save-overlay", "overlay.png")
    page.hover("#overlay", position={"x": 100, "y": 100})
    seen["tip"] = page.inner_text("#tip")
    page.screenshot(path=Path(folder) / "light.png")

    # Sliders and switches
    seen["shown"] = page.evaluate(PAINTED)
    page.locator("#legend input").nth(seen["labels"][0]).uncheck()  # type: ignore[index]
    seen["one off"] = page.evaluate(PAINTED)
    page.click("#none")
    seen["hidden"] = page.evaluate(PAINTED)
    page.click("#all")
    set_range("#opacity", 0)
    assert page.evaluate(PAINTED) == 0
    set_range("#opacity", 80)
    set_range("#confidence", 99)
    page.hover("#overlay", position={"x": 120, "y": 110})
    seen["unsure tip"] = page.inner_text("#tip")
    set_range("#confidence", 0)

    # Other sources
    show(Path(second).name, lambda: page.locator("#strip button").nth(1).click())
    seen["second"] = page.evaluate("Array.from(terrazzo.result.labels)")
    content = base64.b64encode(Path(first).read_bytes()).decode()
    show("drop.png", lambda: page.evaluate(DROP, [content, "drop"]))
    seen["dropped"] = True
    show("pasted image", lambda: page.evaluate(DROP, [content, "paste"]))
    seen["pasted"] = True
    page.click("#webcam")
    page.wait_for_function("window.terrazzo.result?.name === 'webcam' || document.querySelector('#status.error')")
    seen["webcam"] = page.inner_text("#status")
    page.click("#webcam")
    page.click("summary")

    # Other screens
    page.emulate_media(color_scheme="dark")
    page.screenshot(path=Path(folder) / "dark.png")
    page.set_viewport_size({"width": 390, "height": 800})
    seen["phone width"] = page.evaluate("document.documentElement.scrollWidth")
    page.screenshot(path=Path(folder) / "phone.png", full_page=True)
    browser.close()
print(json.dumps(seen))
