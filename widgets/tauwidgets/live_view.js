// Shows `html`, keeps the log's scroll position, reports picks, and greys the panel out when the kernel's beat stops.
function render({ model, el }) {
  const notice = document.createElement("div");
  notice.className = "tau-notice";
  notice.setAttribute("role", "status");
  notice.hidden = true;
  notice.textContent = "Not live: the kernel of this panel has stopped. Run the cell again.";
  const body = document.createElement("div");
  body.className = "tau-live";
  el.append(notice, body);

  const markPicked = () => {
    const picked = new Set(model.get("picked"));
    for (const item of body.querySelectorAll("[data-pick]")) {
      item.setAttribute("aria-pressed", picked.has(item.dataset.pick) ? "true" : "false");
    }
  };

  const draw = () => {
    const before = body.querySelector(".tau-log");
    const atEnd = !before || before.scrollHeight - before.scrollTop - before.clientHeight < 24;
    const top = before ? before.scrollTop : 0;
    const focused = document.activeElement?.dataset?.pick;
    body.innerHTML = model.get("html");
    const log = body.querySelector(".tau-log");
    if (log) log.scrollTop = atEnd ? log.scrollHeight : top;
    if (focused) body.querySelector(`[data-pick="${CSS.escape(focused)}"]`)?.focus();
    markPicked();
  };

  let lastBeat = Date.now();
  const setStale = (stale) => {
    notice.hidden = !stale;
    const panel = el.closest(".tau-panel") ?? el;
    panel.classList.toggle("tau-stale", stale);
  };
  const onBeat = () => {
    lastBeat = Date.now();
    setStale(false);
  };
  const timer = setInterval(() => {
    if (model.get("beat_s") > 0 && Date.now() - lastBeat > 3000 * model.get("beat_s")) setStale(true);
  }, 500);

  body.addEventListener("click", (event) => {
    const item = event.target.closest("[data-pick]");
    if (!item) return;
    const before = new Set(model.get("picked"));
    const picked = model.get("many") ? before : new Set();
    if (before.has(item.dataset.pick) && model.get("many")) picked.delete(item.dataset.pick);
    else picked.add(item.dataset.pick);
    model.set("picked", [...picked]);
    model.save_changes();
  });

  model.on("change:html", draw);
  model.on("change:beat", onBeat);
  model.on("change:picked", markPicked);
  draw();
  return () => {
    clearInterval(timer);
    model.off("change:html", draw);
    model.off("change:beat", onBeat);
    model.off("change:picked", markPicked);
  };
}

export default { render };
