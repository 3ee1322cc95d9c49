// Starts a page that holds everything itself: modules as texts, the model and its runtime as compressed base64.
const text = (id) => document.getElementById(id).textContent;
const address = (source) => URL.createObjectURL(new Blob([source], { type: "text/javascript" }));

async function unpack(id) {
  const encoded = atob(text(id));
  const bytes = new Uint8Array(encoded.length);
  for (let index = 0; index < encoded.length; index++) bytes[index] = encoded.charCodeAt(index);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function boot() {
  const picture = address(text("picture.js"));
  const { LocalBackend } = await import(address(text("backends.js")));
  const app = await import(address(text("app.js").replace("./picture.js", picture)));
  const facts = JSON.parse(text("model-facts"));
  document.getElementById("place").textContent = ": the model is inside it";
  app.busy(true);
  app.say("unpacking the model");
  try {
    const backend = new LocalBackend(address(text("worker.js")));
    const [runtime, wasm, model] = await Promise.all(["ort.mjs", "ort.wasm", "model.onnx"].map(unpack));
    await backend.open({ runtime, wasm, model });
    app.say("ready");
    app.start(facts, backend);
  } catch (problem) {
    app.say(`the model cannot be started in this browser: ${problem.message}`, true);
  }
  app.busy(false);
}

boot();
