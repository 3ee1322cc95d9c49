// The tools with which a class map is corrected: a brush, filling of regions, undoing, and keeping the result.
import { Editor } from "./editor.js";
import { UNSURE, greyCanvas } from "./picture.js";
import { word } from "./words.js";

const $ = (id) => document.getElementById(id);

// `page` has facts, viewer, ready, say(text, isError), result(), and is told of begin(), changed(box) and ended().
export function correcting(page) {
  const { facts, viewer } = page;
  let editor = null;
  let last = null; // where the brush was, while it is down

  viewer.isBusy = (event) => last !== null || (editor !== null && event.pointerType !== "touch" && !event.shiftKey
    && event.buttons === 1);
  const isBrush = () => $("brush").getAttribute("aria-pressed") === "true";
  const label = () => Number($("brush-class").value);
  const radius = () => Number($("brush-size").value) / 2 / viewer.scale;

  function stop() {
    editor = last = null;
    show();
  }

  function show() {
    $("correct").setAttribute("aria-pressed", String(editor !== null));
    $("corrections").hidden = editor === null;
    $("frame").classList.toggle("correcting", editor !== null);
    $("undo").disabled = !editor?.done.length;
    $("brush-size-value").textContent = `${$("brush-size").value} px`;
  }

  function toggle() {
    if (editor !== null) return stop();
    page.begin();
    const { labels, width, height } = page.result();
    editor = new Editor(labels, width, height);
    show();
  }

  function down(event) {
    const isMain = event.button === 0 && event.isPrimary && !event.shiftKey && !event.target.closest("button");
    const pixel = editor && isMain ? viewer.pixel(event) : null;
    if (!pixel) return;
    event.preventDefault();
    editor.begin();
    if (isBrush()) {
      last = pixel;
      $("frame").setPointerCapture(event.pointerId);
      page.changed(editor.draw(pixel, pixel, radius(), label()));
    } else {
      const box = editor.fill(pixel, label());
      if (box) page.changed(box);
      up();
    }
  }

  function move(event) {
    const pixel = last && viewer.pixel(event);
    if (!pixel) return;
    page.changed(editor.draw(last, pixel, radius(), label()));
    last = pixel;
  }

  function up() {
    if (!editor?.stroke) return;
    last = null;
    editor.end();
    page.ended();
    show();
  }

  function undo() {
    const box = editor?.undo();
    if (!box) return;
    page.changed(box);
    page.ended();
    show();
  }

  async function keep() {
    const { labels, width, height, blob, name } = page.result();
    try {
      const png = await greyCanvas(labels, width, height).convertToBlob();
      const path = await (await page.ready).keep(blob, name, png);
      page.say(`${name}: ${word("kept")} ${path}`);
    } catch (problem) {
      page.say(`${name}: ${problem.message}`, true);
    }
  }

  function choose(id) {
    for (const other of ["brush", "fill"]) $(other).setAttribute("aria-pressed", String(other === id));
  }

  function resize(step) {
    $("brush-size").value = Number($("brush-size").value) + step;
    show();
  }

  const KEYS = { c: toggle, b: () => choose("brush"), f: () => choose("fill"), "[": () => resize(-4), "]": () => resize(4) };
  facts.classes.forEach((name, index) => $("brush-class").append(new Option(name, index)));
  $("brush-class").append(new Option(word("unsure"), UNSURE));
  $("correct").onclick = toggle;
  $("brush").onclick = () => choose("brush");
  $("fill").onclick = () => choose("fill");
  $("undo").onclick = undo;
  $("keep").onclick = keep;
  $("keep").hidden = !facts.keeps;
  $("brush-size").oninput = show;
  const frame = $("frame");
  frame.addEventListener("pointerdown", down);
  frame.addEventListener("pointermove", move);
  frame.addEventListener("pointerup", up);
  frame.addEventListener("pointercancel", up);
  return {
    stop,
    tell: () => ($("brush-class").lastElementChild.textContent = word("unsure")),
    // Acts on a key; tells whether it did.
    key(event) {
      if ((event.ctrlKey || event.metaKey) && event.key === "z") return editor !== null && (undo(), true);
      const act = event.ctrlKey || event.metaKey ? null : KEYS[event.key];
      return Boolean(act) && (act(), true);
    },
  };
}
