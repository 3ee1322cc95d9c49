// The page: images in, class maps over them. `start(facts, ready)` listens at once; `ready` is a promise of the backend.
import { correcting } from "./correcting.js";
import { UNSURE, colours, greyCanvas, part, shares, sureLabels, withoutAlpha } from "./picture.js";
import { Viewer } from "./viewer.js";
import { offerLanguages, printable, word } from "./words.js";

const MOST_PIXELS = 4e6; // of the canvas of a whole image, and of what is computed unless files are sent
const MOST_KEPT = 6e7; // pixels of results that are remembered
const AS_STORED = { colorSpaceConversion: "none", premultiplyAlpha: "none" }; // as Python reads files
const percent = (share) => `${(100 * share).toFixed(1)}%`;
const $ = (id) => document.getElementById(id);

export function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

// Shows that something computes, with the share that is done where it is known.
export function busy(isBusy, share = null) {
  const bar = $("progress");
  bar.hidden = !isBusy;
  bar.classList.toggle("known", share !== null);
  bar.firstElementChild.style.width = share === null ? "" : `${100 * share}%`;
  if (share === null) bar.removeAttribute("aria-valuenow");
  else bar.setAttribute("aria-valuenow", Math.round(100 * share));
}

// The largest size of the same shape with at most `most` pixels.
function fitted({ width, height }, most) {
  const scale = Math.min(1, Math.sqrt(most / (width * height)));
  return [width, height].map((length) => Math.max(1, Math.round(length * scale)));
}

export function start(facts, ready) {
  facts = { ...facts, title: printable(facts.title), classes: facts.classes.map(printable) };
  const shown = new Array(256).fill(true); // by label; UNSURE is one
  const viewer = new Viewer();
  const sendsFiles = Boolean(facts.sendsFiles);
  let result = null; // of the image on the page: labels, confidence, width, height, name, blob
  let sure = null; // its labels at the least confidence
  let camera = null;
  let turn = 0; // of the image that was opened last
  let entries = []; // the images of the strip: file, button, and the result once it is known
  let current = null; // the entry that is shown

  // The prediction of an image, whole where the backend takes files
  async function compute(source, blob, name, onProgress) {
    const [width, height] = sendsFiles ? [source.width, source.height] : fitted(source, MOST_PIXELS);
    const backend = await ready;
    if (sendsFiles) return { ...(await backend.predict({ blob, name, width, height }, onProgress)), width, height };
    const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0, width, height);
    const pixels = withoutAlpha(context.getImageData(0, 0, width, height).data).buffer;
    return { ...(await backend.predict({ pixels, height, width }, onProgress)), width, height };
  }

  function place(source, name) {
    const [width, height] = fitted(source, MOST_PIXELS);
    const canvas = $("picture");
    Object.assign(canvas, { width, height });
    canvas.setAttribute("aria-label", name);
    canvas.getContext("2d", { willReadFrequently: true }).drawImage(source, 0, 0, width, height);
    $("frame").hidden = false;
    $("frame").style.setProperty("--ratio", width / height);
    $("frame").style.aspectRatio = `${width} / ${height}`;
    $("empty").hidden = true;
    return { width, height };
  }

  async function show(source, blob, name, known = null) {
    const own = ++turn;
    corrections.stop();
    const base = place(source, name);
    const isNext = camera !== null && $("overlay").width === base.width && $("overlay").height === base.height;
    viewer.show(sendsFiles ? source : $("picture"), ...(sendsFiles ? [source.width, source.height] : [base.width, base.height]));
    if (!isNext) {
      Object.assign($("overlay"), base);
      result = null;
      say(`${name}: ${source.width} × ${source.height} ${word("pixels")}, ${word("computing")}`);
      busy(true);
      draw();
    }
    const begin = performance.now();
    try {
      const found = known ?? (await compute(source, blob, name, (share) => own === turn && busy(true, share)));
      if (own !== turn) return found;
      result = { ...found, name, blob };
      say(account(result, source, (performance.now() - begin) / 1000, known !== null));
    } catch (problem) {
      if (own !== turn) return null;
      result = null;
      say(`${name}: ${problem.message}`, true);
    }
    busy(false);
    draw();
    return result;
  }

  function account({ name, width, height, computes, unlike }, source, seconds, isKnown) {
    const size = `${width} × ${height} ${word("pixels")}${width < source.width ? ` (${word("shrunk")})` : ""}`;
    const worst = unlike ? Object.entries(unlike).sort((a, b) => b[1] - a[1])[0] : null;
    const warning = worst && worst[1] > 1 ? ` — ${word("unlike")} (${worst[0]} ${worst[1].toFixed(1)}×)` : "";
    return `${name}: ${size}${isKnown ? "" : `, ${seconds.toFixed(2)} s ${word("with")} ${computes}`}${warning}`;
  }

  const least = () => Number($("confidence").value) / 100;
  const paint = (left, top, width, height) =>
    result && colours(part(sure, result.width, left, top, width, height), width, facts.palette, shown, opacity(), left + top);
  const opacity = () => Number($("opacity").value) / 100;
  viewer.paint = paint;

  function draw() {
    $("opacity-value").textContent = `${$("opacity").value}%`;
    $("confidence-value").textContent = least() > 0 ? `${$("confidence").value}%` : word("off");
    $("split-value").textContent = Number($("split").value) ? `${$("split").value}%` : word("off");
    viewer.split = Number($("split").value) / 100;
    for (const id of ["save-labels", "save-overlay", "correct"]) $(id).disabled = result === null;
    const overlay = $("overlay");
    sure = result && sureLabels(result, least());
    $("legend").lastElementChild.hidden = least() === 0 && !sure?.includes(UNSURE);
    if (result === null) overlay.getContext("2d").clearRect(0, 0, overlay.width, overlay.height);
    else {
      drawWhole();
      count();
    }
    viewer.refresh();
  }

  // The labels over the canvas of the whole image, which may have fewer pixels.
  function drawWhole() {
    const { width, height } = $("overlay");
    const labels = width === result.width ? sure : reduced(sure, result, width, height);
    const pixels = colours(labels, width, facts.palette, shown, opacity());
    $("overlay").getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
  }

  function reduced(labels, size, width, height) {
    const found = new Uint8Array(width * height);
    const columns = Uint32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * size.width) / width));
    for (let y = 0, at = 0; y < height; y++) {
      const row = Math.floor(((y + 0.5) * size.height) / height) * size.width;
      for (let x = 0; x < width; x++) found[at++] = labels[row + columns[x]];
    }
    return found;
  }

  function count() {
    const found = shares(sure);
    for (const item of $("legend").children) {
      const share = found[item.dataset.label];
      item.querySelector(".share").textContent = share > 0 ? percent(share) : "";
      item.classList.toggle("absent", share === 0);
      item.dataset.share = share;
    }
  }

  const corrections = correcting({
    facts,
    viewer,
    ready,
    say,
    result: () => result,
    begin() { // what is unsure has no class from now on
      result.labels = sureLabels(result, least()).slice();
      $("confidence").value = 0;
      draw();
    },
    changed(box) {
      sure = result.labels;
      drawWhole();
      viewer.refresh(box);
    },
    ended() {
      count();
      $("legend").lastElementChild.hidden = !sure.includes(UNSURE);
    },
  });

  // Sources
  async function decoded(blob, name) {
    try {
      return await createImageBitmap(blob, AS_STORED);
    } catch {
      say(`${name}: ${word("notAnImage")}`, true);
      return null;
    }
  }

  let bitmap = null; // of the image on the page, from which tiles are cut
  async function open(blob, name, entry = null) {
    if (camera) stopWebcam();
    const next = await decoded(blob, name);
    if (next === null) return mark(entry, "failed");
    const before = bitmap;
    bitmap = next;
    current = entry;
    for (const one of entries) one.button.setAttribute("aria-current", String(one === entry));
    const found = await show(next, blob, name, entry?.result);
    before?.close();
    if (entry) remember(entry, found);
  }

  function remember(entry, found) {
    const kept = entries.reduce((sum, one) => sum + (one.result?.labels.length ?? 0), 0);
    if (found && (entry === current || kept + found.labels.length <= MOST_KEPT)) entry.result = found;
    mark(entry, found ? "done" : "failed");
  }

  function mark(entry, state) {
    if (!entry) return;
    entry.state = state;
    entry.button.dataset.state = state;
    tellProgress();
  }

  function tellProgress() {
    const finished = entries.filter((one) => one.state).length;
    $("count").textContent = entries.length > 1 && sendsFiles ? `${finished} / ${entries.length} ${word("done")}` : "";
  }

  async function openAll(files) {
    const images = [...files];
    $("strip").replaceChildren();
    entries = [];
    if (images.length > 1) {
      entries = images.map((file) => {
        const button = document.createElement("button");
        const entry = { file, button, result: null, state: "" };
        const thumbnail = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: file.name });
        Object.assign(button, { type: "button", title: file.name, onclick: () => open(file, file.name, entry) });
        button.append(thumbnail);
        $("strip").append(button);
        return entry;
      });
    }
    const own = entries;
    if (images.length) await open(images[0], images[0].name, entries[0]);
    if (sendsFiles) await computeOthers(own);
  }

  // Those of a list that nobody has looked at yet, one after another
  async function computeOthers(list) {
    for (const entry of list) {
      if (list !== entries || entry.state) continue;
      try {
        const source = await createImageBitmap(entry.file, AS_STORED);
        const found = await compute(source, entry.file, entry.file.name, () => {});
        source.close();
        if (!entry.state) remember(entry, found);
      } catch (problem) {
        entry.button.title = `${entry.file.name}: ${problem.message}`;
        mark(entry, "failed");
      }
    }
  }

  function stopWebcam() {
    camera.getTracks().forEach((track) => track.stop());
    camera = null;
    $("webcam").setAttribute("aria-pressed", "false");
  }

  async function toggleWebcam() {
    if (camera) return stopWebcam();
    try {
      camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch (problem) {
      return say(`${word("noWebcam")}: ${problem.message}`, true);
    }
    $("webcam").setAttribute("aria-pressed", "true");
    $("strip").replaceChildren();
    entries = [];
    await follow(camera);
  }

  async function follow(stream) {
    const video = $("video");
    video.srcObject = stream;
    await video.play();
    while (camera === stream) {
      const frame = await createImageBitmap(video);
      await show(frame, sendsFiles ? await asJpeg(frame) : null, "webcam");
      if (!sendsFiles) frame.close();
      await new Promise(requestAnimationFrame);
    }
    video.srcObject = null;
  }

  function asJpeg(source) {
    const canvas = new OffscreenCanvas(source.width, source.height);
    canvas.getContext("2d").drawImage(source, 0, 0);
    return canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 });
  }

  async function paste(items) {
    for (const item of items) {
      const type = item.types?.find((kind) => kind.startsWith("image/"));
      if (type) return open(await item.getType(type), word("pasted"));
      if (item.kind === "file") return open(item.getAsFile(), word("pasted"));
    }
    say(word("noClipboardImage"), true);
  }

  $("files").onchange = (event) => openAll(event.target.files);
  $("webcam").onclick = toggleWebcam;
  $("paste").onclick = () => navigator.clipboard.read().then(paste, () => say(word("pressPaste")));
  document.onpaste = (event) => paste(event.clipboardData.items);
  document.ondragover = (event) => {
    event.preventDefault();
    document.body.classList.add("dropping");
  };
  document.ondragleave = () => document.body.classList.remove("dropping");
  document.ondrop = (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    openAll(event.dataTransfer.files);
  };

  // The class under the pointer
  const nameOf = (label) => facts.classes[label] ?? word("unsure");
  $("frame").addEventListener("pointermove", (event) => {
    const pixel = result && viewer.pixel(event);
    $("tip").hidden = !pixel;
    if (!pixel) return;
    const index = pixel.y * result.width + pixel.x;
    const text = `${nameOf(result.labels[index])} ${(100 * result.confidence[index]).toFixed(0)}%`;
    $("tip").textContent = result.confidence[index] < least() ? `${word("unsure")} (${text})` : text;
    const box = $("frame").getBoundingClientRect();
    $("tip").style.left = `${Math.min(85, Math.max(15, (100 * (event.clientX - box.left)) / box.width))}%`;
    $("tip").style.top = `${Math.max(12, (100 * (event.clientY - box.top)) / box.height)}%`;
  });
  $("frame").addEventListener("pointerleave", () => ($("tip").hidden = true));

  // Settings
  $("opacity").oninput = $("confidence").oninput = draw;
  $("split").oninput = () => {
    $("split-value").textContent = Number($("split").value) ? `${$("split").value}%` : word("off");
    viewer.split = Number($("split").value) / 100;
    viewer.place();
  };
  const divider = $("divider");
  divider.onpointerdown = (event) => {
    event.stopPropagation(); // it neither pans nor paints
    divider.setPointerCapture(event.pointerId);
  };
  divider.onpointermove = (event) => {
    if (!divider.hasPointerCapture(event.pointerId)) return;
    const box = $("frame").getBoundingClientRect();
    $("split").value = Math.min(99, Math.max(1, (100 * (event.clientX - box.left)) / box.width));
    $("split").oninput();
  };
  $("zoom-in").onclick = () => viewer.step(1.5);
  $("zoom-out").onclick = () => viewer.step(1 / 1.5);
  $("fit").onclick = () => viewer.fit();
  function addToLegend(label, name, background) {
    const item = document.createElement("li");
    const line = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = background;
    box.onchange = () => {
      shown[label] = box.checked;
      draw();
    };
    line.append(box, swatch);
    line.append(Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name }));
    line.append(Object.assign(document.createElement("span"), { className: "share" }));
    item.append(line);
    item.dataset.label = label;
    $("legend").append(item);
  }
  facts.classes.forEach((name, index) => addToLegend(index, name, `rgb(${facts.palette[index].join(" ")})`));
  addToLegend(UNSURE, word("unsure"), "repeating-linear-gradient(135deg, #888 0 2px, transparent 2px 5px)");
  for (const [id, value] of [["all", true], ["none", false]]) {
    $(id).onclick = () => {
      shown.fill(value);
      for (const box of $("legend").querySelectorAll("input")) box.checked = value;
      draw();
    };
  }

  // Keys, unless something else takes them
  let before = 60; // the opacity that the space bar brings back
  const neighbour = (step) => entries[(entries.indexOf(current) + step + entries.length) % entries.length]?.button.click();
  const KEYS = {
    "+": () => viewer.step(1.5), "=": () => viewer.step(1.5), "-": () => viewer.step(1 / 1.5), 0: () => viewer.fit(),
    ArrowLeft: () => viewer.pan(80, 0), ArrowRight: () => viewer.pan(-80, 0),
    ArrowUp: () => viewer.pan(0, 80), ArrowDown: () => viewer.pan(0, -80),
    PageDown: () => neighbour(1), PageUp: () => neighbour(-1),
    " "() {
      const now = Number($("opacity").value);
      if (now) before = now;
      $("opacity").value = now ? 0 : before;
      draw();
    },
  };
  document.addEventListener("keydown", (event) => {
    const isTaken = event.target.closest("input, select, summary") || (event.key === " " && event.target.closest("button"));
    if (isTaken || event.altKey || result === null) return;
    const act = event.ctrlKey || event.metaKey ? null : KEYS[event.key];
    if (act) act();
    else if (!corrections.key(event)) return;
    event.preventDefault();
  });

  // What computes
  function offer(backend) {
    for (const name of backend.choices) $("device").append(new Option(name, name, false, name === backend.computes));
    $("device").parentElement.hidden = backend.choices.length < 2;
    $("device").onchange = async () => {
      busy(true);
      await backend.choose($("device").value);
      $("device").value = backend.computes;
      busy(false);
      if (result !== null && camera === null) await show(await createImageBitmap($("picture")), result.blob, result.name);
    };
  }

  // Saving
  async function save(canvas, suffix) {
    const blob = await canvas.convertToBlob();
    const name = result.name.replace(/\.\w+$/, "").replaceAll(" ", "_");
    const link = Object.assign(document.createElement("a"), { download: `${name}${suffix}.png` });
    link.href = URL.createObjectURL(blob);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  $("save-labels").onclick = () => save(greyCanvas(sureLabels(result, least()), result.width, result.height), "_labels");
  $("save-overlay").onclick = () => {
    const { width, height } = result;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    context.drawImage(viewer.source, 0, 0, width, height);
    const labels = new OffscreenCanvas(width, height);
    labels.getContext("2d").putImageData(new ImageData(paint(0, 0, width, height), width, height), 0, 0);
    context.drawImage(labels, 0, 0);
    save(canvas, "_overlay");
  };

  // What the model says of itself
  for (const [name, value] of Object.entries(facts.about)) {
    $("facts").append(Object.assign(document.createElement("dt"), { textContent: name }));
    $("facts").append(Object.assign(document.createElement("dd"), { textContent: value }));
  }
  document.title = $("title").textContent = facts.title;
  if (sendsFiles) {
    $("stays").dataset.words = "sent";
    $("device-name").dataset.words = $("device").dataset.aria = "model";
  }
  offerLanguages($("language"), tell);
  function tell() {
    $("about").textContent = `${facts.classes.length} ${word("classes")}`;
    $("legend").lastElementChild.querySelector(".name").textContent = word("unsure");
    corrections.tell();
    tellProgress();
    draw();
  }
  tell();
  window.terrazzo = { // for tests and consoles
    get result() {
      return result;
    },
    viewer,
    open,
  };
  ready.then(
    (backend) => {
      offer(backend);
      document.body.dataset.ready = "true";
      if (turn > 0) return; // an image is waiting already
      say(word("ready"));
      busy(false);
    },
    (problem) => {
      say(`${word("cannotStart")}: ${problem.message}`, true);
      busy(false);
    },
  );
}
