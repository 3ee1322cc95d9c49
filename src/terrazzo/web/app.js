// The page: images in, class maps over them. `start(facts, backend)` is called once the model is open.
import { UNSURE, colours, greyCanvas, shares, sureLabels, withoutAlpha } from "./picture.js";

const MOST_PIXELS = 4e6; // larger images are shrunk to this
const $ = (id) => document.getElementById(id);

export function say(text, isError = false) {
  $("status").textContent = text;
  $("status").classList.toggle("error", isError);
}

export function busy(isBusy) {
  $("progress").hidden = !isBusy;
}

export function start(facts, backend) {
  const shown = facts.classes.map(() => true);
  let result = null; // of the image on the page: labels, confidence, width, height
  let camera = null;

  // The image and its prediction
  async function show(source, name) {
    const scale = Math.min(1, Math.sqrt(MOST_PIXELS / (source.width * source.height)));
    const [width, height] = [source.width, source.height].map((length) => Math.max(1, Math.round(length * scale)));
    const canvas = $("picture");
    Object.assign(canvas, { width, height });
    Object.assign($("overlay"), { width, height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(source, 0, 0, width, height);
    $("frame").hidden = false;
    $("empty").hidden = true;
    result = null;
    busy(true);
    const begin = performance.now();
    try {
      const pixels = withoutAlpha(context.getImageData(0, 0, width, height).data).buffer;
      const found = await backend.predict({ pixels, height, width });
      result = { ...found, width, height, name };
      const seconds = ((performance.now() - begin) / 1000).toFixed(2);
      say(`${name}: ${width} x ${height} pixels${scale < 1 ? " (shrunk)" : ""}, ${seconds} s`);
      draw();
    } catch (problem) {
      say(`${name}: ${problem.message}`, true);
    } finally {
      busy(false);
    }
    for (const id of ["save-labels", "save-overlay"]) $(id).disabled = result === null;
  }

  function least() {
    return Number($("confidence").value) / 100;
  }

  function draw() {
    $("opacity-value").textContent = `${$("opacity").value}%`;
    $("confidence-value").textContent = least() > 0 ? `${$("confidence").value}%` : "off";
    if (result === null) return;
    const labels = sureLabels(result, least());
    const pixels = colours(labels, facts.palette, shown, Number($("opacity").value) / 100);
    $("overlay").getContext("2d").putImageData(new ImageData(pixels, result.width, result.height), 0, 0);
    shares(labels, facts.classes.length).forEach((share, index) => {
      const item = $("legend").children[index];
      item.querySelector(".share").textContent = share > 0 ? `${(100 * share).toFixed(1)}%` : "";
      item.dataset.share = share;
    });
  }

  // Sources
  async function open(blob, name) {
    try {
      await show(await createImageBitmap(blob), name);
    } catch {
      say(`${name}: this is not an image that the browser can read`, true);
    }
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

  async function toggleWebcam() {
    if (camera) {
      camera.getTracks().forEach((track) => track.stop());
      camera = null;
    } else {
      try {
        camera = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
        follow(camera);
      } catch (problem) {
        say(`the webcam cannot be opened: ${problem.message}`, true);
      }
    }
    $("webcam").setAttribute("aria-pressed", String(camera !== null));
  }

  async function follow(stream) {
    const video = $("video");
    video.srcObject = stream;
    await video.play();
    while (camera === stream) {
      await show(await createImageBitmap(video), "webcam");
      await new Promise(requestAnimationFrame);
    }
  }

  async function paste(items) {
    for (const item of items) {
      const type = item.types?.find((kind) => kind.startsWith("image/"));
      if (type) return open(await item.getType(type), "pasted image");
      if (item.kind === "file") return open(item.getAsFile(), "pasted image");
    }
    say("the clipboard contains no image", true);
  }

  $("files").onchange = (event) => openAll(event.target.files);
  $("webcam").onclick = toggleWebcam;
  $("paste").onclick = () =>
    navigator.clipboard.read().then(paste, () => say("press Ctrl+V to paste an image here"));
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
    const sure = (100 * result.confidence[index]).toFixed(0);
    const name = facts.classes[result.labels[index]];
    $("tip").textContent = result.confidence[index] < least() ? `unsure (${name} ${sure}%)` : `${name} ${sure}%`;
    $("tip").style.left = `${Math.min(85, Math.max(15, 100 * x))}%`;
    $("tip").style.top = `${Math.max(12, 100 * y)}%`;
    $("tip").hidden = false;
  };
  $("overlay").onpointerleave = () => ($("tip").hidden = true);

  // Settings
  $("opacity").oninput = $("confidence").oninput = draw;
  facts.classes.forEach((name, index) => {
    const item = document.createElement("li");
    const label = document.createElement("label");
    const box = Object.assign(document.createElement("input"), { type: "checkbox", checked: true });
    const swatch = Object.assign(document.createElement("span"), { className: "swatch" });
    swatch.style.background = `rgb(${facts.palette[index].join(" ")})`;
    box.onchange = () => {
      shown[index] = box.checked;
      draw();
    };
    label.append(box, swatch);
    label.append(Object.assign(document.createElement("span"), { className: "name", textContent: name, title: name }));
    label.append(Object.assign(document.createElement("span"), { className: "share" }));
    item.append(label);
    $("legend").append(item);
  });
  for (const [id, value] of [["all", true], ["none", false]]) {
    $(id).onclick = () => {
      shown.fill(value);
      for (const box of $("legend").querySelectorAll("input")) box.checked = value;
      draw();
    };
  }

  // Saving
  async function save(canvas, suffix) {
    const blob = canvas.convertToBlob ? await canvas.convertToBlob() : await new Promise((done) => canvas.toBlob(done));
    const name = result.name.replace(/\.\w+$/, "");
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
  $("about").textContent = facts.classes.length + " classes";
  draw();
  window.terrazzo = { // for tests and consoles
    get result() {
      return result;
    },
    UNSURE,
    open,
  };
  document.body.dataset.ready = "true";
}
