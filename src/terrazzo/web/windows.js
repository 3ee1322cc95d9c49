// Models that run in windows: where these stand, the mean of their logits, and classes from logits.

export function windowStarts(length, crop, stride) {
  const count = Math.max(0, Math.ceil((length - crop) / stride)) + 1;
  return Array.from({ length: count }, (_, index) => Math.min(index * stride, length - crop));
}

// The weight of each pixel of a window; with Gaussian blending less towards the edges.
export function windowShare([height, width], gaussian) {
  const along = (length) =>
    Float64Array.from({ length }, (_, at) => Math.exp(-0.5 * ((at - (length - 1) / 2) / (length / 8)) ** 2));
  const [rows, columns] = [along(height), along(width)];
  return Float32Array.from({ length: height * width }, (_, index) =>
    gaussian ? rows[Math.floor(index / width)] * columns[index % width] : 1);
}

// Logits {data, classes, height, width} of an image of that size: the weighted mean of what `run` gives for each window.
export async function inWindows(image, windows, run, onProgress) {
  const size = [image.height, image.width];
  const crop = windows.crop_size.map((length, axis) => Math.min(length, size[axis]));
  const [tops, lefts] = crop.map((length, axis) => windowStarts(size[axis], length, windows.stride[axis]));
  const share = windowShare(crop, windows.blending === "gaussian");
  const area = size[0] * size[1];
  const visits = new Float32Array(area);
  let total, done = 0;
  for (const top of tops) {
    for (const left of lefts) {
      const logits = await run(cut(image, top, left, crop));
      const classes = logits.length / (crop[0] * crop[1]);
      total ??= new Float32Array(classes * area);
      for (let row = 0, at = 0; row < crop[0]; row++) {
        for (let column = 0, to = (top + row) * size[1] + left; column < crop[1]; column++, at++, to++) {
          visits[to] += share[at];
          for (let k = 0; k < classes; k++) total[k * area + to] += logits[k * share.length + at] * share[at];
        }
      }
      onProgress(++done / (tops.length * lefts.length));
    }
  }
  for (let index = 0; index < total.length; index++) total[index] /= visits[index % area];
  return { data: total, classes: total.length / area, height: size[0], width: size[1] };
}

function cut({ pixels, width }, top, left, [height, across]) {
  const part = new Uint8Array(height * across * 3);
  for (let row = 0; row < height; row++) {
    const from = 3 * ((top + row) * width + left);
    part.set(pixels.subarray(from, from + 3 * across), 3 * row * across);
  }
  return { pixels: part, height, width: across };
}

// Logits at another size, by linear interpolation between the centres of pixels.
export function resized({ data, classes, height, width }, newHeight, newWidth) {
  if (height === newHeight && width === newWidth) return { data, classes, height, width };
  const taps = (length, size) => Array.from({ length: size }, (_, index) => {
    const at = Math.min(length - 1, Math.max(0, ((index + 0.5) * length) / size - 0.5));
    const first = Math.floor(at);
    return [first, Math.min(first + 1, length - 1), Math.fround(at - first)];
  });
  const [rows, columns] = [taps(height, newHeight), taps(width, newWidth)];
  const found = new Float32Array(classes * newHeight * newWidth);
  for (let k = 0, to = 0; k < classes; k++) {
    const plane = data.subarray(k * height * width, (k + 1) * height * width);
    for (const [top, bottom, down] of rows) {
      for (const [left, right, along] of columns) {
        const above = plane[top * width + left] * (1 - down) + plane[bottom * width + left] * down;
        const beside = plane[top * width + right] * (1 - down) + plane[bottom * width + right] * down;
        found[to++] = above * (1 - along) + beside * along;
      }
    }
  }
  return { data: found, classes, height: newHeight, width: newWidth };
}

// Labels and confidence from logits; those of one channel are foreground where their sigmoid is above the threshold.
export function classified({ data, classes, height, width }, threshold) {
  const area = height * width;
  const labels = new Uint8Array(area);
  const confidence = new Float32Array(area);
  for (let at = 0; at < area; at++) {
    if (classes === 1) {
      const foreground = 1 / (1 + Math.exp(-data[at]));
      labels[at] = foreground > threshold ? 1 : 0;
      confidence[at] = Math.max(foreground, 1 - foreground);
      continue;
    }
    let best = 0;
    for (let k = 1; k < classes; k++) if (data[k * area + at] > data[best * area + at]) best = k;
    let sum = 0;
    for (let k = 0; k < classes; k++) sum += Math.exp(data[k * area + at] - data[best * area + at]);
    labels[at] = best;
    confidence[at] = 1 / sum;
  }
  return { labels, confidence };
}
