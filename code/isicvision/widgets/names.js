// The view of imagegrid.Names: ipywidgets gives the handles of its sliders no names for screen readers.

function render({ el }) {
  el.hidden = true;
  requestAnimationFrame(() => {
    const root = el.closest(".widget-vbox") || document.body;
    const name = () => {
      for (const handle of root.querySelectorAll(".noUi-handle:not([aria-label])")) {
        const slider = handle.closest(".widget-slider");
        const label = slider.querySelector(".widget-label");
        const isOne = slider.querySelectorAll(".noUi-handle").length === 1;
        const side = isOne ? "" : handle.classList.contains("noUi-handle-lower") ? "from " : "to ";
        handle.setAttribute("aria-label", side + (label?.title || label?.textContent || "value"));
      }
    };
    name();
    new MutationObserver(name).observe(root, { childList: true, subtree: true });
  });
}

export default { render };
