// A grid of pictures that can be clicked and worked by keys: the view of picturegrid.PictureGrid (anywidget).

const make = (kind, parent, className) => {
  const element = document.createElement(kind);
  element.className = className;
  parent.append(element);
  return element;
};

function fill(cell, picture, caption) {
  cell.querySelector("img").src = picture;
  cell.querySelector("img").alt = caption.title;
  const text = cell.querySelector(".isic-caption");
  text.replaceChildren();
  const title = make("div", text, "isic-title");
  title.textContent = caption.title;
  title.style.borderLeftColor = caption.colour || "transparent";
  for (const bar of caption.bars || []) {
    const row = make("div", text, "isic-bar");
    make("span", row, "").textContent = bar.name;
    const track = make("span", row, "isic-track");
    const value = make("span", track, "isic-value");
    value.style.width = `${100 * bar.value}%`;
    value.style.background = bar.colour;
    make("span", row, "").textContent = bar.value.toFixed(2);
  }
  if (caption.note) make("div", text, "isic-note").textContent = caption.note;
  cell.classList.toggle("isic-dim", Boolean(caption.dim));
  cell.title = caption.hint || "";
}

function render({ model, el }) {
  const root = make("div", el, "isic-grid");
  root.tabIndex = 0;
  root.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes x for "cut the cell"
  const cells = make("div", root, "isic-cells");
  cells.setAttribute("role", "listbox");
  const large = make("div", root, "isic-large");
  make("img", large, "");
  make("div", large, "isic-note");

  const draw = () => {
    const pictures = model.get("pictures");
    const captions = model.get("captions");
    while (cells.children.length > pictures.length) cells.lastChild.remove();
    while (cells.children.length < pictures.length) {
      const cell = make("div", cells, "isic-cell");
      cell.setAttribute("role", "option");
      const number = cells.children.length - 1;
      cell.onclick = () => select(number);
      cell.ondblclick = () => model.send({ key: "z" });
      make("img", cell, "");
      make("div", cell, "isic-caption");
    }
    cells.style.setProperty("--isic-side", `${model.get("side")}px`);
    captions.slice(0, pictures.length).forEach((caption, n) => fill(cells.children[n], pictures[n], caption));
    mark();
  };
  const mark = () => {
    [...cells.children].forEach((cell, n) => {
      cell.setAttribute("aria-selected", n === model.get("selected"));
    });
  };
  const zoom = () => {
    const { picture, text } = model.get("large");
    large.hidden = !picture;
    large.querySelector("img").src = picture || "data:,";
    large.querySelector("div").textContent = text || "";
  };
  const select = (number) => {
    model.set("selected", Math.max(0, Math.min(number, cells.children.length - 1)));
    model.save_changes();
    root.focus({ preventScroll: true });
  };

  root.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const first = cells.children[0];
    const columns = first ? Math.max(1, Math.round(cells.clientWidth / (first.offsetWidth + 8))) : 1;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step) select(model.get("selected") + step);
    else if (model.get("hotkeys").includes(event.key)) model.send({ key: event.key });
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  large.onclick = () => model.send({ key: "z" });
  model.on("change:pictures", draw);
  model.on("change:captions", draw);
  model.on("change:side", draw);
  model.on("change:selected", mark);
  model.on("change:large", zoom);
  draw();
  zoom();
}

export default { render };
