// What is seen of an image: zoom and pan, tiles at full resolution, and the part over which labels are shown.
const TILE = 512; // pixels of the image
const SHARED = 4; // with the next tile, so that no line shows between them
const MOST_TILES = 96; // that are kept
const MOST_ZOOM = 40; // screen pixels of one of the image
const $ = (id) => document.getElementById(id);

export class Viewer {
  // `source` is what drawImage takes; `paint(left, top, width, height)` gives the RGBA pixels of labels, or null.
  constructor() {
    Object.assign(this, { zoom: 1, x: 0, y: 0, split: 0, width: 1, height: 1, source: null, paint: () => null });
    this.tiles = new Map();
    this.pointers = new Map();
    const frame = $("frame");
    frame.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && this.zoom === 1 && event.deltaY > 0) return; // the page scrolls
      event.preventDefault();
      this.zoomAt(event.clientX, event.clientY, Math.exp(-event.deltaY / 400));
    }, { passive: false });
    frame.addEventListener("pointerdown", (event) => this.pointers.set(event.pointerId, event));
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) {
      frame.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    frame.addEventListener("pointermove", (event) => this.move(event));
    new ResizeObserver(() => this.place()).observe(frame);
  }

  show(source, width, height) {
    if (width !== this.width || height !== this.height) this.fit();
    Object.assign(this, { source, width, height });
    this.refresh();
  }

  // The labels have changed, everywhere or in a part.
  refresh(box = null) {
    for (const [key, tile] of this.tiles) {
      const isOutside = box && (tile.left >= box.right || tile.top >= box.bottom || tile.left + TILE + SHARED <= box.left
        || tile.top + TILE + SHARED <= box.top);
      if (!isOutside) this.drop(key);
    }
    this.place();
  }

  // Two fingers zoom; one, or the mouse, pans. `isBusy` tells that the pointer does something else.
  move(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before || this.isBusy?.(event)) return;
    const other = [...this.pointers.values()].find((one) => one.pointerId !== event.pointerId);
    if (other) {
      const distance = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      this.zoomAt(other.clientX, other.clientY, distance(event) / Math.max(1, distance(before)));
    } else this.pan(event.clientX - before.clientX, event.clientY - before.clientY);
    this.pointers.set(event.pointerId, event);
  }

  pan(across, down) {
    this.x += across;
    this.y += down;
    this.place();
  }

  zoomAt(clientX, clientY, factor) {
    const box = $("frame").getBoundingClientRect();
    const most = Math.max(1, (MOST_ZOOM * this.width) / box.width);
    const zoom = Math.min(most, Math.max(1, this.zoom * factor));
    const [across, down] = [clientX - box.left, clientY - box.top];
    this.x = across - ((across - this.x) * zoom) / this.zoom;
    this.y = down - ((down - this.y) * zoom) / this.zoom;
    this.zoom = zoom;
    this.place();
  }

  // Zooms at the middle.
  step(factor) {
    const box = $("frame").getBoundingClientRect();
    this.zoomAt(box.left + box.width / 2, box.top + box.height / 2, factor);
  }

  fit() {
    Object.assign(this, { zoom: 1, x: 0, y: 0 });
    this.place();
  }

  // The pixel of the image under a pointer; null outside.
  pixel(event) {
    const box = $("frame").getBoundingClientRect();
    const x = Math.floor(((event.clientX - box.left - this.x) / (box.width * this.zoom)) * this.width);
    const y = Math.floor(((event.clientY - box.top - this.y) / (box.height * this.zoom)) * this.height);
    return x >= 0 && y >= 0 && x < this.width && y < this.height ? { x, y } : null;
  }

  // Screen pixels of one of the image.
  get scale() {
    return ($("frame").clientWidth * this.zoom) / this.width;
  }

  place() {
    const frame = $("frame");
    const [width, height] = [frame.clientWidth, frame.clientHeight];
    if (!width) return;
    this.x = Math.min(0, Math.max(width * (1 - this.zoom), this.x));
    this.y = Math.min(0, Math.max(height * (1 - this.zoom), this.y));
    $("view").style.transform = `translate(${this.x}px, ${this.y}px) scale(${this.zoom})`;
    frame.classList.toggle("zoomed", this.zoom > 1);
    frame.classList.toggle("close", this.scale > 2);
    const left = `${Math.max(0, ((this.split * width - this.x) / (width * this.zoom)) * 100)}%`;
    $("overlay").style.clipPath = $("overlay-tiles").style.clipPath = this.split ? `inset(0 0 0 ${left})` : "";
    $("divider").hidden = !this.split;
    $("divider").style.left = `${100 * this.split}%`;
    this.placeTiles(width, height);
  }

  // Full resolution where the canvas of the whole image has less.
  placeTiles(width, height) {
    const whole = $("picture");
    const isNeeded = this.source !== null && whole.width < this.width && width * this.zoom > whole.width;
    $("view").classList.toggle("tiled", isNeeded);
    if (!isNeeded) return [...this.tiles.keys()].forEach((key) => this.drop(key));
    const unit = this.width / (width * this.zoom); // pixels of the image in one of the screen
    const first = [Math.floor((-this.x * unit) / TILE), Math.floor((-this.y * unit) / TILE)];
    const last = [Math.floor(((width - this.x) * unit) / TILE), Math.floor(((height - this.y) * unit) / TILE)];
    for (let row = first[1]; row <= last[1]; row++) {
      for (let column = first[0]; column <= last[0]; column++) this.addTile(column * TILE, row * TILE);
    }
    for (const [key, tile] of this.tiles) {
      if (this.tiles.size <= MOST_TILES) break;
      const [column, row] = [tile.left / TILE, tile.top / TILE];
      if (column < first[0] || column > last[0] || row < first[1] || row > last[1]) this.drop(key);
    }
  }

  addTile(left, top) {
    const key = `${left} ${top}`;
    const [width, height] = [Math.min(TILE + SHARED, this.width - left), Math.min(TILE + SHARED, this.height - top)];
    if (this.tiles.has(key) || width <= 0 || height <= 0 || left < 0 || top < 0) return;
    const make = (parent) => {
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const share = (part, all) => `${(100 * part) / all}%`;
      Object.assign(canvas.style, { left: share(left, this.width), top: share(top, this.height),
        width: share(width, this.width), height: share(height, this.height) });
      $(parent).append(canvas);
      return canvas;
    };
    const [picture, overlay] = [make("picture-tiles"), make("overlay-tiles")];
    picture.getContext("2d").drawImage(this.source, left, top, width, height, 0, 0, width, height);
    const pixels = this.paint(left, top, width, height);
    if (pixels) {
      const labels = new OffscreenCanvas(width, height);
      labels.getContext("2d").putImageData(new ImageData(pixels, width, height), 0, 0);
      for (const layer of [picture, labels]) overlay.getContext("2d").drawImage(layer, 0, 0);
    }
    this.tiles.set(key, { left, top, picture, overlay });
  }

  drop(key) {
    const { picture, overlay } = this.tiles.get(key);
    picture.remove();
    overlay.remove();
    this.tiles.delete(key);
  }
}
