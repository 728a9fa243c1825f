// The view of imagegrid.ImageGrid: images that are clicked, or selected and decided about by keys.

const make = (kind, parent, className, text = "") => {
  const element = document.createElement(kind);
  element.className = className;
  element.textContent = text;
  parent.append(element);
  return element;
};

function fill(cell, image, { title, color: edge, spoken = title, note, dim, bars = [] }) {
  const [shown, text] = cell.children;
  shown.src = image;
  shown.alt = title;
  cell.title = spoken;
  cell.setAttribute("aria-label", spoken);
  cell.classList.toggle("isic-dim", Boolean(dim));
  text.replaceChildren();
  make("div", text, "isic-title", title).style.borderLeftColor = edge || "transparent";
  for (const [name, value, color] of bars) {
    const row = make("div", text, "isic-bar");
    make("span", row, "", name).title = name;
    const bar = make("span", make("span", row, "isic-track"), "isic-value");
    bar.style.width = `${100 * value}%`;
    bar.style.background = color;
    make("span", row, "", value.toFixed(2));
  }
  if (note) make("div", text, "isic-note", note);
}

function render({ model, el }) {
  const root = make("div", el, "isic-images");
  const status = make("div", root, "isic-status");
  status.setAttribute("role", "status"); // screen readers read it out
  const grid = make("div", root, "isic-grid");
  grid.tabIndex = 0;
  grid.setAttribute("role", "listbox");
  grid.dataset.lmSuppressShortcuts = "true"; // else JupyterLab cuts the cell on x
  const prefix = `isic-${Math.random().toString(36).slice(2)}-`; // a page may show two views of one model
  const large = make("div", root, "isic-large");
  const largeImage = make("img", large, "");
  const largeText = make("div", large, "isic-note");
  let selected = model.get("selected"); // as this view has it: the kernel may still be busy with earlier keys
  const last = () => model.get("events").at(-1)?.number ?? 0;
  const tell = (event) => {
    const events = model.get("events");
    const number = Math.max(last() + 1, Date.now()); // later than those of another tab, too
    model.set("events", [...events.slice(-50), { ...event, number, turn: model.get("turn") }]);
    model.save_changes();
  };
  const zoom = () => tell({ key: "z" });
  const focus = () => grid.focus({ preventScroll: true });
  const select = (number) => {
    selected = Math.max(0, Math.min(number, grid.children.length - 1));
    tell({ selected });
    mark();
    focus();
  };
  const add = (number) => {
    const cell = make("div", grid, "isic-cell");
    cell.id = prefix + number;
    cell.setAttribute("role", "option");
    cell.onclick = () => select(number);
    cell.ondblclick = zoom;
    make("img", cell, "");
    make("div", cell, "");
  };
  const draw = () => {
    const images = model.get("images");
    while (grid.children.length > images.length) grid.lastChild.remove();
    while (grid.children.length < images.length) add(grid.children.length);
    const captions = model.get("captions").slice(0, images.length); // the two may change one after the other
    captions.forEach((caption, n) => fill(grid.children[n], images[n], caption));
    mark();
  };
  const mark = () => {
    [...grid.children].forEach((cell, n) => cell.setAttribute("aria-selected", n === selected));
    grid.setAttribute("aria-activedescendant", grid.children[selected]?.id || "");
    if (document.activeElement === grid) grid.children[selected]?.scrollIntoView({ block: "nearest" });
  };
  const follow = () => {
    if (model.get("heard") < last()) return; // it does not know of the last click yet
    selected = model.get("selected");
    mark();
  };
  const say = () => {
    const { image, text = "" } = model.get("large");
    large.hidden = !image;
    largeImage.src = image || "data:,";
    largeImage.alt = largeText.textContent = text;
    grid.setAttribute("aria-label", model.get("name"));
    status.textContent = model.get("status");
  };

  grid.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const columns = getComputedStyle(grid).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
    if (step) select(selected + step);
    else if (event.key === "Escape" && !large.hidden) zoom();
    else if (model.get("hotkeys").includes(event.key)) tell({ key: event.key });
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  large.onclick = zoom;
  model.on("msg:custom", focus);
  for (const trait of ["selected", "heard"]) model.on(`change:${trait}`, follow);
  for (const trait of ["images", "captions"]) model.on(`change:${trait}`, draw);
  for (const trait of ["name", "status", "large"]) model.on(`change:${trait}`, say);
  draw();
  say();
}

export default { render };
