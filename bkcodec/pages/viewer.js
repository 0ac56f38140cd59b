"use strict";
// One window onto one or two pictures of the same size. Dragging moves the pictures, the handle moves
// the divider, which stays in the window. `changed` is called after every change by the reader.
function createViewer(changed) {
  const $ = (id) => document.getElementById(id);
  const LEVELS = [0.125, 0.25, 0.5, 1, 2, 3, 4, 6, 8, 12, 16], BUTTONS = [["Fit", 0], ["1:1", 1], ["2×", 2], ["4×", 4], ["8×", 8]];
  const viewport = $("viewport"), handle = $("handle"), divider = $("divider"), layers = [$("left-layer"), $("right-layer")];
  const originals = [...viewport.querySelectorAll(".original")];
  const size = { width: 1, height: 1 }, pointers = new Map();
  // zoom: CSS pixels per pixel of the picture, 0 = all of it; x, y: what is in the window's middle.
  const now = { zoom: 1, x: 0, y: 0, difference: false };
  let visible = [0, 1], alone = false;
  const clamp = (v, low, high) => Math.min(high, Math.max(low, v));
  const fit = () => Math.min(viewport.clientWidth / size.width, viewport.clientHeight / size.height);
  const scale = () => now.zoom || fit();

  function axis(centre, room, length) {
    const left = length <= room ? (room - length) / 2 : clamp(room / 2 - centre, room - length, 0);
    return Math.round(left);
  }
  function layout() {
    const z = scale(), room = [viewport.clientWidth, viewport.clientHeight], width = size.width * z, height = size.height * z;
    const left = axis(now.x * z, room[0], width), top = axis(now.y * z, room[1], height);
    if (width > room[0]) now.x = (room[0] / 2 - left) / z;
    if (height > room[1]) now.y = (room[1] / 2 - top) / z;
    for (const [name, value] of Object.entries({ left, top, width, height })) viewport.style.setProperty(`--${name}`, `${value}px`);
    visible = [Math.max(0, left), Math.min(room[0], left + width)];
    const roomy = width > room[0] + 1 || height > room[1] + 1;
    viewport.classList.toggle("roomy", roomy);
    viewport.classList.toggle("still", !roomy);
    viewport.classList.toggle("large", z > 1);
    for (const button of $("zoom").children) button.setAttribute("aria-pressed", Number(button.dataset.zoom) === now.zoom);
    divide();
  }
  function divide() {
    const x = visible[0] + divider.value / 100 * (visible[1] - visible[0]);
    layers[0].style.clipPath = alone ? "none" : `inset(0 calc(100% - ${x}px) 0 0)`;
    layers[1].style.clipPath = `inset(0 0 0 ${x}px)`;
    handle.style.left = `${x}px`;
  }
  // Zoom so that what is at (px, py) of the window stays there.
  function zoomTo(zoom, px = viewport.clientWidth / 2, py = viewport.clientHeight / 2) {
    const before = scale(), dx = px - viewport.clientWidth / 2, dy = py - viewport.clientHeight / 2;
    now.zoom = zoom ? clamp(zoom, LEVELS[0], LEVELS.at(-1)) : 0;
    now.x += dx / before - dx / scale();
    now.y += dy / before - dy / scale();
    layout(); changed();
  }
  const step = (up) => up ? LEVELS.find((l) => l > scale() * 1.001) ?? LEVELS.at(-1) : LEVELS.findLast((l) => l < scale() * 0.999) ?? LEVELS[0];
  function pan(dx, dy) { now.x -= dx / scale(); now.y -= dy / scale(); layout(); changed(); }
  function setDifference(on) {
    now.difference = on && !$("difference").hidden;
    viewport.classList.toggle("difference", now.difference);
    $("difference").setAttribute("aria-pressed", now.difference);
  }
  function held(on) {
    if ($("hold").hidden) return;
    viewport.classList.toggle("held", on);
    $("hold").setAttribute("aria-pressed", on);
  }

  for (const [text, zoom] of BUTTONS) {
    const button = document.createElement("button");
    Object.assign(button, { className: "plain", type: "button", textContent: text });
    button.dataset.zoom = zoom;
    button.addEventListener("click", () => zoomTo(zoom));
    $("zoom").append(button);
  }
  $("difference").addEventListener("click", () => { setDifference(!now.difference); changed(); });
  $("hold").addEventListener("pointerdown", (event) => { $("hold").setPointerCapture(event.pointerId); held(true); });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture", "blur"]) $("hold").addEventListener(name, () => held(false));
  $("hold").addEventListener("contextmenu", (event) => event.preventDefault());
  $("hold").addEventListener("keydown", (event) => { if (event.key === " " || event.key === "Enter") { event.preventDefault(); held(true); } });
  $("hold").addEventListener("keyup", () => held(false));
  divider.addEventListener("input", () => { divide(); changed(); });

  handle.addEventListener("pointerdown", (event) => { event.stopPropagation(); handle.setPointerCapture(event.pointerId); });
  handle.addEventListener("pointermove", (event) => {
    if (!handle.hasPointerCapture(event.pointerId)) return;
    const x = event.clientX - viewport.getBoundingClientRect().left - viewport.clientLeft;
    divider.value = clamp((x - visible[0]) / (visible[1] - visible[0]) * 100, 0, 100);
    divide(); changed();
  });
  viewport.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    pointers.set(event.pointerId, [event.clientX, event.clientY]);
    viewport.setPointerCapture(event.pointerId);
    viewport.classList.add("dragged");
  });
  viewport.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return;
    const after = [event.clientX, event.clientY], other = [...pointers].find(([id]) => id !== event.pointerId)?.[1];
    pointers.set(event.pointerId, after);
    if (!other) { pan(after[0] - before[0], after[1] - before[1]); return; }
    const box = viewport.getBoundingClientRect(), apart = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
    zoomTo(scale() * apart(after, other) / apart(before, other), (after[0] + other[0]) / 2 - box.left, (after[1] + other[1]) / 2 - box.top);
  });
  for (const name of ["pointerup", "pointercancel"]) viewport.addEventListener(name, (event) => {
    pointers.delete(event.pointerId);
    viewport.classList.toggle("dragged", pointers.size > 0);
  });
  viewport.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const box = viewport.getBoundingClientRect();
    zoomTo(scale() * 2 ** (-event.deltaY / 200), event.clientX - box.left, event.clientY - box.top);
  }, { passive: false });
  viewport.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move) pan(...move);
    else if (event.key === "+" || event.key === "=") zoomTo(step(true));
    else if (event.key === "-") zoomTo(step(false));
    else if (event.key === "0") zoomTo(0);
    else if (event.key === "1") zoomTo(1);
    else if (event.key === "o") held(true);
    else if (event.key === "d") $("difference").click();
    else return;
    event.preventDefault();
  });
  viewport.addEventListener("keyup", (event) => { if (event.key === "o") held(false); });
  viewport.addEventListener("blur", () => held(false));
  new ResizeObserver(layout).observe(viewport);

  return {
    // Show pictures of a size: addresses, or null for those that there are not.
    show({ width, height, left, right = null, original = null }) {
      const other = width !== size.width || height !== size.height;
      Object.assign(size, { width, height });
      if (other) {
        viewport.style.setProperty("--window", `max(20rem, ${height + 2}px)`);
        [now.x, now.y] = [width / 2, height / 2];
      }
      alone = right === null;
      viewport.classList.toggle("alone", alone);
      layers[1].hidden = divider.hidden = alone;
      $("difference").hidden = $("hold").hidden = original === null;
      const set = (picture, source) => { if (source !== null && picture.getAttribute("src") !== source) picture.src = source; };
      set($("left-picture"), left); set($("right-picture"), right);
      for (const picture of originals) set(picture, original);
      layout();
    },
    // What is shown of them, for an address, and back.
    state: () => ({ zoom: now.zoom || "fit", at: `${now.x.toFixed(1)},${now.y.toFixed(1)}`, divider: divider.value, ...(now.difference ? { difference: 1 } : {}) }),
    restore(state) {
      const zoom = state.get("zoom"), at = (state.get("at") ?? "").split(",").map(parseFloat), part = parseFloat(state.get("divider"));
      if (zoom === "fit") now.zoom = 0;
      else if (Number.isFinite(parseFloat(zoom))) now.zoom = clamp(parseFloat(zoom), LEVELS[0], LEVELS.at(-1));
      if (at.length === 2 && at.every(Number.isFinite)) [now.x, now.y] = [clamp(at[0], 0, size.width), clamp(at[1], 0, size.height)];
      if (Number.isFinite(part)) divider.value = clamp(part, 0, 100);
      setDifference(state.get("difference") === "1");
      layout();
    },
  };
}
// The state of a page stands in its address: `read` gets it, `write` says it a moment after a change.
function linkState(read, write) {
  let timer = 0, own = "";
  const load = () => { if (location.hash !== own) read(new URLSearchParams(location.hash.slice(1))); };
  window.addEventListener("hashchange", load);
  load();
  return () => {
    clearTimeout(timer);
    timer = setTimeout(() => { own = "#" + new URLSearchParams(write()); history.replaceState(null, "", own); own = location.hash; }, 200);
  };
}
