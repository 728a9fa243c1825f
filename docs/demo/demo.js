"use strict";
// Takes the place of the service behind its page, page.js: a model that runs in the browser. Nothing leaves it.

const LIMIT = 1.0001;  // these three as in code/03_deployment/score.py
const BLANK = 4;
const BLURRED = 1.1;
const MAX_BYTES = 20 * 2 ** 20;

const loading = load();
loading.then(
  () => find("status").textContent === "Loading the model …" && say("Ready: choose an image."),
  error => typeof refuse === "function" ? refuse(error.message)
    : document.getElementById("status").append(error.message));

async function load() {
  const parts = { "page.js": typeof score, "decode.js": typeof decode, "ort.wasm.min.js": typeof ort };
  const missing = Object.keys(parts).filter(name => parts[name] === "undefined");
  if (missing.length) throw new Error(`${missing.join(", ")} of this page could not be loaded. Reload the page.`);
  say("Loading the model …");
  if (location.protocol === "file:")
    throw new Error("Opened from a disk, this page may not load its model. Serve the site: python -m http.server");
  if (typeof WebAssembly === "undefined")
    throw new Error("This browser has no WebAssembly, which the model needs. Use another browser, or switch it on.");
  try {
    ort.env.wasm.numThreads = 1;  // more need headers that a site of plain files cannot send
    const [metadata, model] = await Promise.all([fetched("model.json"), fetched("model.onnx")]);
    const session = await ort.InferenceSession.create(new Uint8Array(await model.arrayBuffer()));
    return { session, metadata: await metadata.json() };
  } catch (error) {
    throw new Error(`The model could not be loaded (${error.message}). Reload the page.`);
  }
}

async function fetched(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`${name}: status ${response.status}`);
  return response;
}

/** Answer as the service does; page.js has another function of this name, which asks it. */
async function ask(file) {
  try {
    if (file.size > MAX_BYTES) throw new Error("it is larger than 20 MB");
    const { session, metadata } = await loading;
    const { id, version, caveat, image_size: size } = metadata;
    const array = await decode(file, size, metadata.interpolation);
    refuseEmpty(array, size);
    const results = await session.run({ images: new ort.Tensor("uint8", array, [1, size, size, 3]) });
    const distance = results.distance?.data[0];
    if (distance > LIMIT)
      throw new Error(`it is too unlike the training images (distance ${distance.toFixed(2)}, limit 1.00)`);
    const prediction = { ...decided([...results.scores.data], metadata), distance };
    return { predictions: [prediction], model: { id, version }, caveat };
  } catch (error) {
    return { message: error.message };
  }
}

function decided(values, { labels, decision }) {
  const scores = Object.fromEntries(labels.map((label, index) => [label, values[index]]));
  if (!decision) return { label: labels[values.indexOf(Math.max(...values))], scores };
  const { positive, threshold } = decision;
  const label = scores[positive] >= threshold ? positive : labels.find(each => each !== positive);
  return { label, scores, threshold, positive };
}

/** Refuse an image that shows nothing: see _problem in score.py. */
function refuseEmpty(array, size) {
  const gray = Float32Array.from({ length: size * size }, (_, at) =>
    (array[3 * at] + array[3 * at + 1] + array[3 * at + 2]) / 3);
  if (deviation(gray) < BLANK) throw new Error("it is blank: nothing stands out from the background");
  const edges = [];
  for (let y = 1; y < size - 1; y += 1)
    for (let at = y * size + 1; at < (y + 1) * size - 1; at += 1)
      edges.push(gray[at - size] + gray[at + size] + gray[at - 1] + gray[at + 1] - 4 * gray[at]);
  if (deviation(edges) < BLURRED) throw new Error("it is blurred: it shows no detail");
}

function deviation(values) {
  const mean = values.reduce((sum, each) => sum + each, 0) / values.length;
  return Math.sqrt(values.reduce((sum, each) => sum + (each - mean) ** 2, 0) / values.length);
}

for (const button of document.querySelectorAll("#samples button"))
  button.onclick = async () => {
    const response = await fetch(button.querySelector("img").src);
    score(new File([await response.blob()], button.textContent));
  };
