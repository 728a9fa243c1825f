// Names for screen readers: ipywidgets gives the handles of its sliders none. The view of imagegrid.Names (anywidget).

function render({ el }) {
  el.hidden = true;
  requestAnimationFrame(() => {
    const root = el.closest(".widget-vbox") || document.body;
    const name = () => {
      for (const handle of root.querySelectorAll(".noUi-handle:not([aria-label])")) {
        const label = handle.closest(".widget-slider")?.querySelector(".widget-label");
        const end = handle.parentElement.parentElement.querySelectorAll(".noUi-handle").length > 1;
        const side = !end ? "" : handle.classList.contains("noUi-handle-lower") ? "from " : "to ";
        handle.setAttribute("aria-label", side + (label?.title || label?.textContent || "value"));
      }
    };
    name();
    new MutationObserver(name).observe(root, { childList: true, subtree: true });
  });
}

export default { render };
