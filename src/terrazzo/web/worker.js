// Runs a model in a thread of its own, so that the page stays alive while it computes. From a disk, browsers let a
// worker import nothing but the texts that it is given.

const PROVIDERS = { WebGPU: "webgpu", WebAssembly: "wasm" };
const imported = (text) => import(`data:text/javascript,${encodeURIComponent(text)}`);
const sessions = {}; // by the name of what computes
let ort, windows, facts, model, resizing, computes;

// Returns what can compute, and what does: the graphics card, unless the processor only plays one.
async function open({ runtime, wasm, resize, modules, ...given }) {
  ({ facts, model } = given);
  [ort, windows] = await Promise.all([new TextDecoder().decode(runtime), modules.windows].map(imported));
  ort.env.wasm.numThreads = 1; // more need headers that only a server can send
  ort.env.wasm.wasmBinary = wasm;
  if (resize) resizing = await load(resize, "wasm");
  const adapter = facts.gpu ? await navigator.gpu?.requestAdapter() : null;
  const choices = adapter ? Object.keys(PROVIDERS) : ["WebAssembly"];
  const isFast = adapter && !(adapter.info?.isFallbackAdapter ?? adapter.isFallbackAdapter);
  return { choices, ...(await choose(isFast ? "WebGPU" : "WebAssembly")) };
}

function load(bytes, provider) {
  const options = { executionProviders: [provider], logSeverityLevel: 3 };
  return ort.InferenceSession.create(new Uint8Array(bytes), options);
}

async function choose(name) {
  try {
    sessions[name] ??= await load(model, PROVIDERS[name]);
    computes = name;
  } catch (problem) {
    if (name === "WebAssembly") throw problem;
    return choose("WebAssembly");
  }
  return { computes };
}

function tensor({ pixels, height, width }) {
  return new ort.Tensor("uint8", pixels, [1, height, width, 3]);
}

// What fails on the graphics card, for lack of memory or of an operator, is computed by the processor.
async function predict(image, onProgress) {
  try {
    return { ...(await segment(image, onProgress)), computes };
  } catch (problem) {
    if (computes === "WebAssembly") throw problem;
    await choose("WebAssembly");
    return { ...(await segment(image, onProgress)), computes };
  }
}

async function segment({ pixels, height, width }, onProgress) {
  const session = sessions[computes];
  const image = { pixels: new Uint8Array(pixels), height, width };
  if (!facts.windows) {
    const found = await session.run({ image: tensor(image) }, ["labels", "confidence"]);
    return { labels: new Uint8Array(found.labels.data), confidence: new Float32Array(found.confidence.data) };
  }
  if (resizing) {
    const { resized: found } = await resizing.run({ image: tensor(image) });
    Object.assign(image, { pixels: found.data, height: found.dims[1], width: found.dims[2] });
  }
  const run = async (part) => (await session.run({ image: tensor(part) }, ["logits"])).logits.data;
  const logits = await windows.inWindows(image, facts.windows, run, onProgress);
  return windows.classified(windows.resized(logits, height, width), facts.threshold);
}

self.onmessage = async ({ data: { id, call, argument } }) => {
  try {
    const value = await { open, choose, predict }[call](argument, (progress) => self.postMessage({ id, progress }));
    const moved = value.labels ? [value.labels.buffer, value.confidence.buffer] : [];
    self.postMessage({ id, value }, moved);
  } catch (problem) {
    self.postMessage({ id, error: String(problem?.message ?? problem) });
  }
};
