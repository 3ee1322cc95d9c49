// What computes a prediction: `predict({pixels, height, width})` gives labels and confidence, row by row.

// The model inside the page, in a worker.
export class LocalBackend {
  constructor(workerUrl) {
    this.worker = new Worker(workerUrl);
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: { id, value, error } }) => {
      const { resolve, reject } = this.waiting.get(id);
      this.waiting.delete(id);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
    this.worker.onerror = (event) => {
      for (const { reject } of this.waiting.values()) reject(new Error(event.message));
      this.waiting.clear();
    };
  }

  call(call, argument, moved = []) {
    const id = this.count++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, call, argument }, moved);
    });
  }

  open(parts) {
    return this.call("open", parts, [parts.model, parts.wasm]);
  }

  predict(image) {
    return this.call("predict", image, [image.pixels]);
  }
}
