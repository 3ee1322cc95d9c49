// Corrections of a class map: strokes of a brush, regions that get another class, and undoing.
const MOST_BYTES = 256 << 20; // of what can be undone

export class Editor {
  constructor(labels, width, height) {
    Object.assign(this, { labels, width, height, done: [], bytes: 0, stroke: null });
  }

  // A stroke begins: what it changes is undone as one.
  begin() {
    this.stroke = { left: this.width, top: this.height, right: 0, bottom: 0, old: this.labels.slice() };
  }

  // A disk of a radius in pixels along a line; returns the box that may have changed.
  draw(from, to, radius, label) {
    const box = {
      left: Math.max(0, Math.floor(Math.min(from.x, to.x) - radius)),
      top: Math.max(0, Math.floor(Math.min(from.y, to.y) - radius)),
      right: Math.min(this.width, Math.ceil(Math.max(from.x, to.x) + radius) + 1),
      bottom: Math.min(this.height, Math.ceil(Math.max(from.y, to.y) + radius) + 1),
    };
    const [across, down] = [to.x - from.x, to.y - from.y];
    const length = across * across + down * down;
    for (let y = box.top; y < box.bottom; y++) {
      for (let x = box.left; x < box.right; x++) {
        const along = length ? Math.min(1, Math.max(0, ((x - from.x) * across + (y - from.y) * down) / length)) : 0;
        const [dx, dy] = [x - from.x - along * across, y - from.y - along * down];
        if (dx * dx + dy * dy <= radius * radius) this.labels[y * this.width + x] = label;
      }
    }
    this.widen(box);
    return box;
  }

  // The region of one class around a pixel gets another.
  fill({ x, y }, label) {
    const { labels, width, height } = this;
    const old = labels[y * width + x];
    if (old === label) return null;
    const box = { left: x, top: y, right: x + 1, bottom: y + 1 };
    const waiting = [y * width + x];
    while (waiting.length) {
      const place = waiting.pop();
      if (labels[place] !== old) continue;
      const row = Math.floor(place / width) * width;
      let [left, right] = [place, place];
      while (left > row && labels[left - 1] === old) left--;
      while (right < row + width - 1 && labels[right + 1] === old) right++;
      for (const next of [row - width, row + width]) {
        if (next < 0 || next >= height * width) continue;
        for (let at = left; at <= right; at++) {
          const other = at - row + next;
          if (labels[other] === old && (at === left || labels[other - 1] !== old)) waiting.push(other);
        }
      }
      labels.fill(label, left, right + 1);
      const line = row / width;
      box.left = Math.min(box.left, left - row);
      box.right = Math.max(box.right, right - row + 1);
      box.top = Math.min(box.top, line);
      box.bottom = Math.max(box.bottom, line + 1);
    }
    this.widen(box);
    return box;
  }

  widen(box) {
    const stroke = this.stroke;
    stroke.left = Math.min(stroke.left, box.left);
    stroke.top = Math.min(stroke.top, box.top);
    stroke.right = Math.max(stroke.right, box.right);
    stroke.bottom = Math.max(stroke.bottom, box.bottom);
  }

  // The stroke ends: of what was there before, its box is kept.
  end() {
    const { old, ...box } = this.stroke;
    this.stroke = null;
    if (box.right <= box.left) return;
    const across = box.right - box.left;
    const before = new Uint8Array(across * (box.bottom - box.top));
    for (let y = box.top; y < box.bottom; y++) {
      const start = y * this.width + box.left;
      before.set(old.subarray(start, start + across), (y - box.top) * across);
    }
    this.done.push({ ...box, before });
    this.bytes += before.length;
    while (this.bytes > MOST_BYTES && this.done.length > 1) this.bytes -= this.done.shift().before.length;
  }

  undo() {
    const last = this.done.pop();
    if (!last) return null;
    this.bytes -= last.before.length;
    const across = last.right - last.left;
    for (let y = last.top; y < last.bottom; y++) {
      const from = (y - last.top) * across;
      this.labels.set(last.before.subarray(from, from + across), y * this.width + last.left);
    }
    return last;
  }
}
