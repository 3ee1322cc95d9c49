// What computes predictions. A backend has
//   choices, computes: names of what can compute, and of what does
//   choose(name): a promise; afterwards another of the choices computes
//   keep(image, name, labels): where `facts.keeps`, a promise of the place of an image kept with its labels (PNG)
//   predict({pixels, height, width}, onProgress): a promise of {labels, confidence, computes}, row by row, from RGB
//     bytes; onProgress(share) is called where the share that is done (0 to 1) is known. Where
//     `facts.sendsFiles` it gets {blob, name, height, width} instead of pixels.

// The model inside the page, in a worker.
export class LocalBackend {
  constructor(workerUrl) {
    this.worker = new Worker(workerUrl);
    this.waiting = new Map();
    this.count = 0;
    this.worker.onmessage = ({ data: { id, value, error, progress } }) => {
      const { resolve, reject, onProgress } = this.waiting.get(id);
      if (progress !== undefined) return onProgress(progress);
      this.waiting.delete(id);
      if (error === undefined) resolve(value);
      else reject(new Error(error));
    };
    this.failure = new Promise((_, reject) => {
      this.worker.onerror = (event) => reject(new Error(event.message ?? "the worker does not start"));
    });
    this.failure.catch(() => {}); // whoever waits is told
  }

  call(call, argument, moved = [], onProgress = () => {}) {
    const id = this.count++;
    const answer = new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, onProgress });
      this.worker.postMessage({ id, call, argument }, moved);
    });
    return Promise.race([answer, this.failure]);
  }

  async open(parts) {
    const buffers = Object.values(parts).filter((part) => part instanceof ArrayBuffer);
    Object.assign(this, await this.call("open", parts, buffers));
  }

  async choose(name) {
    Object.assign(this, await this.call("choose", name));
  }

  predict(image, onProgress) {
    return this.call("predict", image, [image.pixels], onProgress);
  }
}
