// Drawing of class maps, and what is counted in them.
export const UNSURE = 255;
const STRIPE = 256; // in the table of colours

// Labels with UNSURE where the confidence is below `least` (0 to 1).
export function sureLabels({ labels, confidence }, least) {
  if (least <= 0) return labels;
  return labels.map((label, index) => (confidence[index] < least ? UNSURE : label));
}

// The share of pixels of each label, 0 to 255.
export function shares(labels) {
  const found = new Float64Array(256);
  for (const label of labels) found[label]++;
  return Array.from(found, (value) => value / labels.length);
}

// The colours of the labels that are shown as RGBA pixels, UNSURE as grey stripes; all else is transparent.
export function colours(labels, width, palette, shown, opacity, phase = 0) {
  const alpha = Math.round(255 * opacity);
  const table = new Uint32Array(257);
  const bytes = new Uint8Array(table.buffer);
  palette.forEach(([red, green, blue], index) => {
    if (shown[index]) bytes.set([red, green, blue, alpha], 4 * index);
  });
  if (shown[UNSURE]) bytes.set([128, 128, 128, alpha], 4 * STRIPE);
  const pixels = new Uint32Array(labels.length);
  for (let index = 0; index < labels.length; index++) {
    const isStripe = labels[index] === UNSURE && ((index % width) + Math.floor(index / width) + phase) % 8 < 3;
    pixels[index] = table[isStripe ? STRIPE : labels[index]];
  }
  return new Uint8ClampedArray(pixels.buffer);
}

// A rectangle of labels of an image of that width.
export function part(labels, across, left, top, width, height) {
  const found = new Uint8Array(width * height);
  for (let row = 0; row < height; row++) {
    const from = (top + row) * across + left;
    found.set(labels.subarray(from, from + width), row * width);
  }
  return found;
}

// RGBA pixels without their alpha.
export function withoutAlpha(rgba) {
  const pixels = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    pixels[to++] = rgba[from];
    pixels[to++] = rgba[from + 1];
    pixels[to++] = rgba[from + 2];
  }
  return pixels;
}

// A canvas whose grey value is the label.
export function greyCanvas(labels, width, height) {
  const canvas = new OffscreenCanvas(width, height);
  const rgba = new Uint8ClampedArray(4 * labels.length);
  labels.forEach((label, index) => rgba.set([label, label, label, 255], 4 * index));
  canvas.getContext("2d").putImageData(new ImageData(rgba, width, height), 0, 0);
  return canvas;
}
