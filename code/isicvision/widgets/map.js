// The view of imagegrid.PointMap: points on a canvas, chosen by a lasso, by a circle that keys move, or by a value.

const make = (kind, parent, className, text = "") => {
  const element = document.createElement(kind);
  element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
};
const bytes = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);

function inside(x, y, corners) {
  let is = false;
  for (let n = 0, m = corners.length - 1; n < corners.length; m = n++) {
    const [[ax, ay], [bx, by]] = [corners[n], corners[m]];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) is = !is;
  }
  return is;
}

function render({ model, el }) {
  const root = make("div", el, "isic-map");
  const stage = make("div", root, "isic-stage");
  const canvas = make("canvas", stage, "");
  const pen = canvas.getContext("2d");
  const tip = make("div", stage, "isic-tip");
  const tipImage = make("img", tip, "");
  const tipText = make("div", tip, "isic-note");
  const legend = make("div", root, "isic-legend");
  const status = make("div", root, "isic-status");
  status.setAttribute("role", "status"); // screen readers read it out
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  canvas.setAttribute("aria-label", "Map of the images. Arrow keys move a circle, + and - resize it, Enter opens its images.");
  canvas.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the keys
  tipImage.alt = "";
  const seen = new Map(); // number of a point to its image and text
  let side = 0, hovered = -1, lasso = [], circle = null, places, codes, chosen;

  const x = (n) => 8 + places[2 * n] * (side - 16);
  const y = (n) => 8 + places[2 * n + 1] * (side - 16);
  const all = (test) => [...codes.keys()].filter(test);
  const within = ([cx, cy, r]) => all((n) => Math.hypot(x(n) - cx, y(n) - cy) <= r);

  const draw = () => {
    if (!side) return;
    const start = performance.now(), ratio = window.devicePixelRatio;
    const ink = getComputedStyle(root).color, names = model.get("legend");
    const size = codes.length > 3000 ? 3 : 5;
    canvas.width = canvas.height = side * ratio;
    pen.scale(ratio, ratio);
    const colors = names.map(({ color }) => (color === "#000000" ? ink : color)); // black is lost on a dark page
    const stride = [7919, 7907, 1].find((each) => codes.length % each || each === 1); // no label lies on top
    for (let k = 0, n = 0; k < codes.length; k++, n = (n + stride) % codes.length) {
      pen.globalAlpha = !chosen.size || chosen.has(n) ? 0.9 : 0.2;
      pen.fillStyle = colors[codes[n]];
      pen.fillRect(x(n) - size / 2, y(n) - size / 2, size, size);
    }
    pen.globalAlpha = 1;
    pen.strokeStyle = ink;
    pen.lineWidth = 1.5;
    pen.beginPath();
    lasso.forEach((corner) => pen.lineTo(...corner));
    pen.stroke();
    pen.beginPath();
    if (circle) pen.arc(...circle, 0, 2 * Math.PI);
    else if (hovered >= 0) pen.arc(x(hovered), y(hovered), 6, 0, 2 * Math.PI);
    pen.stroke();
    performance.measure("isic-map", { start });
  };
  let waiting = 0;
  const redraw = () => {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(draw);
  };
  const nearest = (px, py, most) => {
    let found = -1;
    for (let n = 0; n < codes.length; n++) {
      const distance = Math.hypot(x(n) - px, y(n) - py);
      if (distance < most) [found, most] = [n, distance];
    }
    return found;
  };
  const show = () => {
    const { image, text } = seen.get(hovered) || {};
    tip.hidden = !image;
    if (!image) return;
    [tipImage.src, tipText.textContent] = [image, text];
    const isLeft = x(hovered) > side / 2; // on the other side than the point
    [tip.style.left, tip.style.right] = isLeft ? ["8px", "auto"] : ["auto", "8px"];
  };
  const hover = (n) => {
    if (n === hovered) return;
    hovered = n;
    if (n >= 0 && !seen.has(n)) model.send({ hover: n });
    show();
    redraw();
  };
  const choose = (numbers) => {
    model.set("chosen", numbers);
    model.save_changes();
  };

  canvas.onpointerdown = (event) => {
    if (event.button) return;
    canvas.setPointerCapture(event.pointerId);
    [lasso, circle] = [[[event.offsetX, event.offsetY]], null];
  };
  canvas.onpointermove = ({ offsetX, offsetY }) => {
    if (!lasso.length) return hover(nearest(offsetX, offsetY, 8));
    lasso.push([offsetX, offsetY]);
    hover(-1);
    redraw();
  };
  canvas.onpointerup = () => {
    if (!lasso.length) return;
    const [[px, py]] = lasso, corners = lasso;
    lasso = [];
    if (corners.length > 3) choose(all((n) => inside(x(n), y(n), corners)));
    else choose([nearest(px, py, 8)].filter((n) => n >= 0)); // a click
    redraw();
  };
  canvas.onpointerleave = () => hover(-1);
  canvas.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
    const grow = { "+": 1.25, "-": 0.8 }[event.key] || 1;
    const [cx, cy, r] = circle || [side / 2, side / 2, side / 12];
    if (dx || dy || grow !== 1) {
      const step = circle ? Math.max(r / 2, 4) : 0; // the first key only shows it
      const clip = (value) => Math.max(0, Math.min(side, value));
      circle = [clip(cx + dx * step), clip(cy + dy * step), Math.max(6, Math.min(side / 2, r * grow))];
      const count = within(circle).length;
      status.textContent = `${count} image${count === 1 ? "" : "s"} in the circle`;
      hover(nearest(circle[0], circle[1], circle[2]));
    } else if (event.key === "Enter" && circle) choose(within(circle));
    else if (event.key === "Escape") {
      circle = null;
      status.textContent = model.get("status");
      hover(-1);
      choose([]);
    } else return;
    redraw();
    event.preventDefault();
    event.stopPropagation();
  };

  const list = () => {
    legend.replaceChildren();
    model.get("legend").forEach(({ name, color, count }, code) => {
      const item = make("button", legend, "isic-value-of", "");
      make("span", item, "isic-swatch").style.background = color === "#000000" ? "currentColor" : color;
      make("span", item, "", `${name} (${count.toLocaleString("en")})`);
      item.title = `Open the images of ${name}`;
      item.onclick = () => choose(all((n) => codes[n] === code));
    });
  };
  const read = () => {
    places = new Float32Array(bytes(model.get("places")));
    codes = new Uint8Array(bytes(model.get("codes")));
    chosen = new Set(model.get("chosen"));
    redraw();
  };
  for (const trait of ["places", "codes", "chosen"]) model.on(`change:${trait}`, read);
  model.on("change:legend", () => (list(), redraw()));
  model.on("change:status", () => (status.textContent = model.get("status")));
  model.on("msg:custom", ({ hover: n, ...found }) => {
    seen.set(n, found);
    if (n === hovered) show();
  });
  const theme = new MutationObserver(redraw);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const resized = new ResizeObserver(() => {
    side = stage.clientWidth;
    redraw();
  });
  resized.observe(stage);
  read();
  list();
  status.textContent = model.get("status");
  tip.hidden = true;
  return () => [theme, resized].forEach((each) => each.disconnect());
}

export default { render };
