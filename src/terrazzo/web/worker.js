// Runs a model in a thread of its own, so that the page stays alive while it computes.
let ort, session;

async function open({ runtime, wasm, model }) {
  ort = await import(`data:text/javascript,${encodeURIComponent(new TextDecoder().decode(runtime))}`);
  ort.env.wasm.numThreads = 1; // more need headers that only a server can send
  ort.env.wasm.wasmBinary = wasm;
  session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  return {};
}

async function predict({ pixels, height, width }) {
  const image = new ort.Tensor("uint8", new Uint8Array(pixels), [1, height, width, 3]);
  const found = await session.run({ image });
  return { labels: new Uint8Array(found.labels.data), confidence: new Float32Array(found.confidence.data) };
}

self.onmessage = async ({ data: { id, call, argument } }) => {
  try {
    const value = await { open, predict }[call](argument);
    const moved = value.labels ? [value.labels.buffer, value.confidence.buffer] : [];
    self.postMessage({ id, value }, moved);
  } catch (problem) {
    self.postMessage({ id, error: String(problem?.message ?? problem) });
  }
};
