// A page whose server computes: starts it, and asks for the token that the server may want.
import { busy, say, start } from "./app.js";
import { word } from "./words.js";

const LABELS = "application/vnd.terrazzo.labels+gzip";
const KEY = "terrazzo-token";

class ServerBackend {
  constructor(models, chosen) {
    Object.assign(this, { choices: models.map(({ name }) => name), computes: chosen });
  }

  // Another model has other classes: the page begins anew.
  async choose(name) {
    location.search = `?model=${encodeURIComponent(name)}`;
  }

  async predict({ blob, name, width, height }) {
    const query = new URLSearchParams({ model: this.computes, name });
    const answer = await ask(`predict?${query}`, { method: "POST", headers: { Accept: LABELS }, body: blob });
    const stream = answer.body.pipeThrough(new DecompressionStream("gzip"));
    const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
    const area = width * height;
    if (bytes.length !== 2 * area) throw new Error(`the server gave ${bytes.length / 2} pixels instead of ${area}`);
    const confidence = Float32Array.from(bytes.subarray(area), (value) => value / 255);
    const pairs = (answer.headers.get("X-Unlike") ?? "").split(", ").filter(Boolean).map((pair) => pair.split("="));
    const unlike = Object.fromEntries(pairs.map(([kind, value]) => [kind, Number(value)]));
    return { labels: bytes.slice(0, area), confidence, computes: this.computes, unlike };
  }

  // Keeps an image with its corrected labels; a promise of where.
  async keep(image, name, labels) {
    const form = new FormData();
    form.append("image", image, name);
    form.append("labels", labels, "labels.png");
    const query = new URLSearchParams({ model: this.computes });
    return (await (await ask(`keep?${query}`, { method: "POST", body: form, headers: { "X-Terrazzo": "keep" } })).json()).image;
  }
}

async function ask(path, options = {}) {
  const token = sessionStorage.getItem(KEY);
  const headers = { ...options.headers, ...(token ? { Authorization: `Bearer ${token}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  if (answer.status === 401) {
    const given = prompt(word("token"));
    if (given) {
      sessionStorage.setItem(KEY, given.trim());
      return ask(path, options);
    }
  }
  const text = await answer.text();
  let detail = text;
  try {
    ({ detail } = JSON.parse(text));
  } catch {} // of something between us and the server
  throw new Error(String(detail).slice(0, 500));
}

async function boot() {
  busy(true);
  const { models, keeps } = await (await ask("models")).json();
  const wanted = new URLSearchParams(location.search).get("model");
  const model = models.find(({ name }) => name === wanted) ?? models[0];
  if (model.classes.length > 255) throw new Error("the page shows models of up to 255 classes");
  const channels = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  const about = { Source: model.source, Precision: model.precision, "Licence of the weights": model.licence,
    "Runs on": `${model.runtime}, ${model.device}` };
  const facts = {
    title: model.name,
    classes: model.classes.map(({ name }) => name),
    palette: model.classes.map(({ colour }) => channels(colour)),
    about: Object.fromEntries(Object.entries(about).filter(([, value]) => value)),
    sendsFiles: true,
    keeps,
  };
  start(facts, Promise.resolve(new ServerBackend(models, model.name)));
}

boot().catch((problem) => {
  busy(false);
  say(problem.message, true);
});
