"""Drives Chromium over a page: `browser.py CHROMIUM PAGE FOLDER IMAGE IMAGE`; prints what it saw as JSON.

It runs in a Python of its own, that has Playwright and nothing of terrazzo.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

chromium, page_file, folder, first, second = sys.argv[1:]
FLAGS = [
    "--no-sandbox", "--no-first-run", "--disable-quic", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader",
]  # fmt: skip
DROP = """([text, type]) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const transfer = new DataTransfer();
  transfer.items.add(new File([bytes], type + ".png", { type: "image/png" }));
  const event = type === "paste" ? new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })
    : new DragEvent("drop", { dataTransfer: transfer, bubbles: true });
  document.body.dispatchEvent(event);
}"""
COPY = """async (text) => {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  await navigator.clipboard.write([new ClipboardItem({ "image/png": new Blob([bytes], { type: "image/png" }) })]);
}"""
PAINTED = """() => {
  const overlay = document.getElementById("overlay");
  const pixels = overlay.getContext("2d").getImageData(0, 0, overlay.width, overlay.height).data;
  let count = 0;
  for (let index = 3; index < pixels.length; index += 4) count += pixels[index] > 0;
  return count;
}"""
WATCH = """() => {
  window.progress = [];
  const bar = document.getElementById("progress");
  new MutationObserver(() => bar.hidden || window.progress.push(bar.getAttribute("aria-valuenow")))
    .observe(bar, { attributes: true });
}"""
NAMED = ("button", "slider", "checkbox", "combobox", "progressbar", "image")
seen: dict[str, Any] = {"problems": []}

with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    context = browser.new_context(viewport={"width": 1200, "height": 800}, offline=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda problem: seen["problems"].append(str(problem)))
    page.on("console", lambda message: seen["problems"].append(message.text) if message.type == "error" else None)
    page.goto(Path(page_file).as_uri())
    page.wait_for_function("document.getElementById('files').onchange !== null")
    page.set_input_files("#files", [first])  # it waits for the model
    page.wait_for_selector("body[data-ready]")
    page.wait_for_function("window.terrazzo.result !== null")
    page.reload()
    page.wait_for_selector("body[data-ready]")

    def shoot(name: str) -> None:
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=name == "phone")

    def show(name: str, action: Any) -> None:
        """Do what opens an image, and wait for its result."""
        page.evaluate("document.getElementById('status').textContent = ''")
        action()
        page.wait_for_function(f"document.getElementById('status').textContent.startsWith({json.dumps(name)})"
                               " && terrazzo.result !== null")  # fmt: skip

    def labels() -> list[int]:
        return page.evaluate("Array.from(terrazzo.result.labels)")

    def save(button: str, name: str) -> None:
        with page.expect_download() as download:
            page.click(button)
        download.value.save_as(Path(folder) / name)

    def legend() -> list[float]:
        return page.evaluate("[...document.querySelectorAll('#legend li')].map((item) => Number(item.dataset.share))")

    # An image, its result and its files
    shoot("empty")
    page.evaluate(WATCH)
    show(Path(first).name, lambda: page.set_input_files("#files", [first, second]))
    seen["labels"], seen["shares"] = labels(), legend()
    seen["confidence"] = page.evaluate("Array.from(terrazzo.result.confidence)")
    seen["progress"] = page.evaluate("window.progress")
    save("#save-labels", "labels.png")
    save("#save-overlay", "overlay.png")
    page.hover("#overlay", position={"x": 100, "y": 100})
    seen["tip"] = page.inner_text("#tip")
    shoot("light")

    # Sliders and switches
    seen["shown"] = page.evaluate(PAINTED)
    page.locator("#legend input").nth(seen["labels"][0]).uncheck()
    seen["one off"] = page.evaluate(PAINTED)
    page.click("#none")
    seen["hidden"] = page.evaluate(PAINTED)
    page.click("#all")
    page.locator("#opacity").fill("0")
    seen["transparent"] = page.evaluate(PAINTED)
    page.locator("#opacity").fill("80")
    page.locator("#confidence").fill("99")
    page.hover("#overlay", position={"x": 120, "y": 110})
    seen["unsure tip"], seen["unsure share"] = page.inner_text("#tip"), legend()[-1]
    save("#save-labels", "sure.png")
    shoot("unsure")
    page.locator("#confidence").fill("0")

    # Other sources
    show(Path(second).name, lambda: page.locator("#strip button").nth(1).click())
    seen["second"] = labels()
    content = base64.b64encode(Path(first).read_bytes()).decode()
    show("drop.png", lambda: page.evaluate(DROP, [content, "drop"]))
    seen["dropped"] = labels()
    show("pasted image", lambda: page.evaluate(DROP, [content, "paste"]))
    seen["pasted"] = labels()
    page.evaluate(COPY, content)
    show("pasted image", lambda: page.click("#paste"))
    seen["paste button"] = labels()
    page.set_input_files("#files", [{"name": "notes.txt", "mimeType": "text/plain", "buffer": b"no image"}])
    page.wait_for_selector("#status.error")
    seen["error"] = page.inner_text("#status")
    shoot("error")
    show("webcam", lambda: page.click("#webcam"))
    seen["webcam"] = page.inner_text("#status")
    shoot("webcam")
    page.click("#webcam")
    seen["webcam off"] = page.get_attribute("#webcam", "aria-pressed")

    # The graphics card, played by the processor
    page.wait_for_timeout(1000)
    show(Path(second).name, lambda: page.set_input_files("#files", [second]))
    show(Path(second).name, lambda: page.select_option("#device", "WebGPU"))
    seen["gpu"], seen["computes"] = labels(), page.inner_text("#status")

    # Other screens, and names for those who cannot see them
    tree = context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen["roles"] = [node["role"]["value"] for node in tree if not node["ignored"]]
    seen["nameless"] = [
        node["role"]["value"]
        for node in tree
        if not node["ignored"] and node["role"]["value"] in NAMED and not node.get("name", {}).get("value")
    ]
    page.click("summary")
    page.emulate_media(color_scheme="dark")
    shoot("dark")
    page.set_viewport_size({"width": 390, "height": 800})
    seen["phone width"] = page.evaluate("document.documentElement.scrollWidth")
    shoot("phone")
    browser.close()
print(json.dumps(seen))
