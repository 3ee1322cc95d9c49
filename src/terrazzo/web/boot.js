// Starts a page that holds everything itself: modules as texts, the model and its runtime as compressed base64.
const element = (id) => document.getElementById(id);
const addresses = new Map();

// The address of a module, and of those that it imports.
function address(name) {
  if (!addresses.has(name)) {
    const source = element(name).textContent.replace(/from "\.\/([\w.]+)"/g, (_, other) => `from "${address(other)}"`);
    addresses.set(name, URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
  }
  return addresses.get(name);
}

async function unpack(id) {
  if (!element(id)) return null;
  const encoded = atob(element(id).textContent);
  element(id).remove(); // its memory is needed
  const bytes = new Uint8Array(encoded.length);
  for (let index = 0; index < encoded.length; index++) bytes[index] = encoded.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function openModel(backend, facts, say) {
  say("Unpacking the model …");
  const [runtime, wasm, model, resize] = await Promise.all(["ort.mjs", "ort.wasm", "model.onnx", "resize.onnx"].map(unpack));
  say("Starting the model …");
  const modules = { windows: element("windows.js").textContent };
  await backend.open({ runtime, wasm, model, resize, modules, facts });
  return backend;
}

async function boot() {
  const app = await import(address("app.js"));
  const { LocalBackend } = await import(address("backends.js"));
  const facts = JSON.parse(element("model-facts").textContent);
  app.busy(true);
  app.start(facts, openModel(new LocalBackend(address("worker.js")), facts, app.say));
}

boot();
