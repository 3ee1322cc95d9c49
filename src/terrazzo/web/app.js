// The page: images in, class maps over them. `start(facts, ready)` listens at once; `ready` is a promise of the backend.
import { UNSURE, colours, greyCanvas, shares, sureLabels, withoutAlpha } from "./picture.js";

const MOST_PIXELS = 4e6; // larger images are shrunk to this
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

export function start(facts, ready) {
  const shown = new Array(256).fill(true); // by label; UNSURE is one
  let result = null; // of the image on the page: labels, confidence, width, height, name
  let camera = null;
  let turn = 0; // of the image that was opened last

  // The image and its prediction
  async function show(source, name) {
    const own = ++turn;
    const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (source.width * source.height)));
    const [width, height] = [source.width, source.height].map((length) => Math.max(1, Math.round(length * scale)));
    const canvas = $("picture");
    Object.assign(canvas, { width, height });
    canvas.setAttribute("aria-label", name);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0, width, height);
    const isNext = camera !== null && result?.width === width && result.height === height;
    if (!isNext) {
      Object.assign($("overlay"), { width, height });
      result = null;
      say(`${name}: ${width} × ${height} pixels, computing …`);
      busy(true);
      draw();
    }
    $("frame").hidden = false;
    $("frame").style.setProperty("--ratio", width / height);
    $("empty").hidden = true;
    const begin = performance.now();
    try {
      const pixels = withoutAlpha(context.getImageData(0, 0, width, height).data).buffer;
      const found = await (await ready).predict({ pixels, height, width }, (share) => own === turn && busy(true, share));
      if (own !== turn) return;
      result = { ...found, width, height, name };
      const seconds = ((performance.now() - begin) / 1000).toFixed(2);
      const size = `${width} × ${height} pixels${scale < 1 ? " (shrunk)" : ""}`;
      say(`${name}: ${size}, ${seconds} s with ${found.computes}`);
    } catch (problem) {
      if (own !== turn) return;
      result = null;
      say(`${name}: ${problem.message}`, true);
    }
    busy(false);
    draw();
  }

  function least() {
    return Number($("confidence").value) / 100;
  }

  function draw() {
    $("opacity-value").textContent = `${$("opacity").value}%`;
    $("confidence-value").textContent = least() > 0 ? `${$("confidence").value}%` : "off";
    $("legend").lastElementChild.hidden = least() === 0; // that of unsure pixels
    for (const id of ["save-labels", "save-overlay"]) $(id).disabled = result === null;
    const overlay = $("overlay");
    if (result === null) return overlay.getContext("2d").clearRect(0, 0, overlay.width, overlay.height);
    const labels = sureLabels(result, least());
    const pixels = colours(labels, result.width, facts.palette, shown, Number($("opacity").value) / 100);
    overlay.getContext("2d").putImageData(new ImageData(pixels, result.width, result.height), 0, 0);
    const found = shares(labels);
    for (const item of $("legend").children) {
      const share = found[item.dataset.label];
      item.querySelector(".share").textContent = share > 0 ? percent(share) : "";
      item.classList.toggle("absent", share === 0);
      item.dataset.share = share;
    }
  }

  // Sources
  async function open(blob, name) {
    let bitmap;
    if (camera) stopWebcam();
    try {
      bitmap = await createImageBitmap(blob, AS_STORED);
    } catch {
      return say(`${name}: this is not an image that the browser can read`, true);
    }
    await show(bitmap, name);
    bitmap.close();
  }

  async function openAll(files) {
    const images = [...files];
    $("strip").replaceChildren();
    if (images.length > 1) {
      for (const file of images) {
        const button = document.createElement("button");
        const thumbnail = Object.assign(new Image(), { src: URL.createObjectURL(file), alt: file.name });
        Object.assign(button, { type: "button", title: file.name, onclick: () => open(file, file.name) });
        button.append(thumbnail);
        $("strip").append(button);
      }
    }
    if (images.length) await open(images[0], images[0].name);
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
      return say(`The webcam cannot be opened: ${problem.message}`, true);
    }
    $("webcam").setAttribute("aria-pressed", "true");
    $("strip").replaceChildren();
    await follow(camera);
  }

  async function follow(stream) {
    const video = $("video");
    video.srcObject = stream;
    await video.play();
    while (camera === stream) {
      const frame = await createImageBitmap(video);
      await show(frame, "webcam");
      frame.close();
      await new Promise(requestAnimationFrame);
    }
    video.srcObject = null;
  }

  async function paste(items) {
    for (const item of items) {
      const type = item.types?.find((kind) => kind.startsWith("image/"));
      if (type) return open(await item.getType(type), "pasted image");
      if (item.kind === "file") return open(item.getAsFile(), "pasted image");
    }
    say("The clipboard contains no image.", true);
  }

  $("files").onchange = (event) => openAll(event.target.files);
  $("webcam").onclick = toggleWebcam;
  $("paste").onclick = () =>
    navigator.clipboard.read().then(paste, () => say("Press Ctrl+V to paste an image here."));
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
  $("overlay").onpointermove = (event) => {
    if (result === null) return;
    const box = $("overlay").getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    const column = Math.min(result.width - 1, Math.max(0, Math.floor(x * result.width)));
    const row = Math.min(result.height - 1, Math.max(0, Math.floor(y * result.height)));
    const index = row * result.width + column;
    const text = `${facts.classes[result.labels[index]]} ${(100 * result.confidence[index]).toFixed(0)}%`;
    $("tip").textContent = result.confidence[index] < least() ? `unsure (${text})` : text;
    $("tip").style.left = `${Math.min(85, Math.max(15, 100 * x))}%`;
    $("tip").style.top = `${Math.max(12, 100 * y)}%`;
    $("tip").hidden = false;
  };
  $("overlay").onpointerleave = () => ($("tip").hidden = true);

  // Settings
  $("opacity").oninput = $("confidence").oninput = draw;
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
  addToLegend(UNSURE, "unsure", "repeating-linear-gradient(135deg, #888 0 2px, transparent 2px 5px)");
  for (const [id, value] of [["all", true], ["none", false]]) {
    $(id).onclick = () => {
      shown.fill(value);
      for (const box of $("legend").querySelectorAll("input")) box.checked = value;
      draw();
    };
  }

  // What computes
  function offer(backend) {
    for (const name of backend.choices) $("device").append(new Option(name, name, false, name === backend.computes));
    $("device").parentElement.hidden = backend.choices.length < 2;
    $("device").onchange = async () => {
      busy(true);
      await backend.choose($("device").value);
      $("device").value = backend.computes;
      busy(false);
      if (result !== null && camera === null) await show(await createImageBitmap($("picture")), result.name);
    };
  }

  // Saving
  async function save(canvas, suffix) {
    const blob = canvas.convertToBlob ? await canvas.convertToBlob() : await new Promise((done) => canvas.toBlob(done));
    const name = result.name.replace(/\.\w+$/, "").replaceAll(" ", "_");
    const link = Object.assign(document.createElement("a"), { download: `${name}${suffix}.png` });
    link.href = URL.createObjectURL(blob);
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }
  $("save-labels").onclick = () => save(greyCanvas(sureLabels(result, least()), result.width, result.height), "_labels");
  $("save-overlay").onclick = () => {
    const canvas = new OffscreenCanvas(result.width, result.height);
    const context = canvas.getContext("2d");
    context.drawImage($("picture"), 0, 0);
    context.drawImage($("overlay"), 0, 0);
    save(canvas, "_overlay");
  };

  // What the model says of itself
  for (const [name, value] of Object.entries(facts.about)) {
    $("facts").append(Object.assign(document.createElement("dt"), { textContent: name }));
    $("facts").append(Object.assign(document.createElement("dd"), { textContent: value }));
  }
  document.title = $("title").textContent = facts.title;
  $("about").textContent = `${facts.classes.length} classes`;
  draw();
  window.terrazzo = { // for tests and consoles
    get result() {
      return result;
    },
    open,
  };
  ready.then(
    (backend) => {
      offer(backend);
      document.body.dataset.ready = "true";
      if (turn > 0) return; // an image is waiting already
      say("Ready.");
      busy(false);
    },
    (problem) => {
      say(`The model cannot be started in this browser: ${problem.message}`, true);
      busy(false);
    },
  );
}
