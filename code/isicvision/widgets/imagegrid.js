// A grid of images that can be clicked and worked by keys: the view of imagegrid.ImageGrid (anywidget).

const make = (kind, parent, className) => {
  const element = document.createElement(kind);
  element.className = className;
  parent.append(element);
  return element;
};

function fill(cell, image, caption) {
  cell.querySelector("img").src = image;
  cell.querySelector("img").alt = caption.title;
  const text = cell.querySelector(".isic-caption");
  text.replaceChildren();
  const title = make("div", text, "isic-title");
  title.textContent = caption.title;
  title.style.borderLeftColor = caption.color || "transparent";
  for (const bar of caption.bars || []) {
    const row = make("div", text, "isic-bar");
    const name = make("span", row, "");
    name.textContent = name.title = bar.name;
    const track = make("span", row, "isic-track");
    const value = make("span", track, "isic-value");
    value.style.width = `${100 * bar.value}%`;
    value.style.background = bar.color;
    make("span", row, "").textContent = bar.value.toFixed(2);
  }
  if (caption.note) make("div", text, "isic-note").textContent = caption.note;
  cell.classList.toggle("isic-dim", Boolean(caption.dim));
  cell.title = caption.hint || "";
  cell.setAttribute("aria-label", caption.spoken || caption.title);
}

function render({ model, el }) {
  const root = make("div", el, "isic-images");
  const status = make("div", root, "isic-status");
  status.setAttribute("role", "status"); // a screen reader says what is written there
  const grid = make("div", root, "isic-grid");
  grid.tabIndex = 0;
  grid.setAttribute("role", "listbox");
  grid.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes x for "cut the cell"
  const prefix = `isic-${Math.random().toString(36).slice(2)}-`; // ids are unique in a page, also of two views
  const large = make("div", root, "isic-large");
  make("img", large, "");
  make("div", large, "isic-note");

  const draw = () => {
    const images = model.get("images");
    const captions = model.get("captions");
    while (grid.children.length > images.length) grid.lastChild.remove();
    while (grid.children.length < images.length) {
      const cell = make("div", grid, "isic-cell");
      const number = grid.children.length - 1;
      cell.id = prefix + number;
      cell.setAttribute("role", "option");
      cell.onclick = () => select(number);
      cell.ondblclick = () => model.send({ key: "z" });
      make("img", cell, "");
      make("div", cell, "isic-caption");
    }
    grid.style.setProperty("--isic-side", `${model.get("side")}px`);
    captions.slice(0, images.length).forEach((caption, n) => fill(grid.children[n], images[n], caption));
    mark();
  };
  const mark = () => {
    const selected = model.get("selected");
    [...grid.children].forEach((cell, n) => cell.setAttribute("aria-selected", n === selected));
    grid.setAttribute("aria-activedescendant", grid.children[selected]?.id || "");
    if (document.activeElement === grid) grid.children[selected]?.scrollIntoView({ block: "nearest" });
  };
  const zoom = () => {
    const { image, text } = model.get("large");
    large.hidden = !image;
    large.querySelector("img").src = image || "data:,";
    large.querySelector("img").alt = large.querySelector("div").textContent = text || "";
  };
  const name = () => {
    grid.setAttribute("aria-label", model.get("name"));
    status.textContent = model.get("status");
  };
  const select = (number) => {
    model.set("selected", Math.max(0, Math.min(number, grid.children.length - 1)));
    model.save_changes();
    grid.focus({ preventScroll: true });
  };

  grid.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step) select(model.get("selected") + step);
    else if (event.key === "Escape" && !large.hidden) model.send({ key: "z" });
    else if (model.get("hotkeys").includes(event.key)) model.send({ key: event.key });
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  large.onclick = () => model.send({ key: "z" });
  model.on("msg:custom", () => grid.focus({ preventScroll: true }));
  for (const trait of ["images", "captions", "side"]) model.on(`change:${trait}`, draw);
  for (const trait of ["name", "status"]) model.on(`change:${trait}`, name);
  model.on("change:selected", mark);
  model.on("change:large", zoom);
  name();
  draw();
  zoom();
}

export default { render };
