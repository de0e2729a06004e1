"use strict";
(() => {
  // The page is whole without this script: it adds a tip over chart points, copying, and unfolding for print.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  document.body.append(tip);

  const show = (point) => {
    tip.textContent = point.dataset.tip;
    tip.hidden = false;
    const dot = point.querySelector(".dot").getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const left = Math.max(8, Math.min(dot.right + 10, room));
    const above = dot.top - tip.offsetHeight - 8;
    const top = above > 8 ? above : dot.bottom + 8;
    // Set through the object model: the page's policy allows no style attributes in the markup.
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${top + window.scrollY}px`;
  };
  const hide = () => { tip.hidden = true; };
  for (const point of document.querySelectorAll(".chart .point")) {
    point.addEventListener("pointerenter", () => show(point));
    point.addEventListener("pointerleave", hide);
    point.addEventListener("focus", () => show(point));
    point.addEventListener("blur", hide);
  }
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  const copyByHand = (text) => {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  };
  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      return copyByHand(text);
    }
  };
  for (const button of document.querySelectorAll("button[data-copy]")) {
    const text = button.textContent;
    button.addEventListener("click", async () => {
      const done = await copy(button.dataset.copy);
      button.textContent = done ? "copied" : text;
      button.classList.toggle("done", done);
      setTimeout(() => {
        button.textContent = text;
        button.classList.remove("done");
      }, 1200);
    });
  }

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const item of opened) item.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const item of opened) item.open = false;
  });
})();
