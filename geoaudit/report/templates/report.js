(() => {
  "use strict";
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  // Sortable tables: numbers by data-v, words by what is read.
  for (const head of all("table.sortable th")) {
    const button = head.querySelector("button");
    if (!button) continue;
    button.addEventListener("click", () => {
      const table = head.closest("table"), body = table.tBodies[0];
      const column = [...head.parentNode.children].indexOf(head);
      const up = head.getAttribute("aria-sort") === "descending";
      all("th", table).forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column], given = cell.dataset.v;
        return given === undefined ? cell.textContent.trim().toLowerCase() : given === "" ? -Infinity : Number(given);
      };
      const rows = [...body.rows].map((row) => [value(row), row]);
      rows.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0) * (up ? 1 : -1));
      body.append(...rows.map(([, row]) => row));
    });
  }

  // Neurons: words, status and layer.
  const search = document.getElementById("words");
  if (search) {
    const cards = all(".neuron"), shown = document.getElementById("shown"), none = document.getElementById("nothing");
    const layer = document.getElementById("layer"), pattern = shown.dataset.text;
    let status = "";
    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      for (const card of cards) {
        const fits = (!status || card.dataset.status === status) && (!layer.value || card.dataset.layer === layer.value)
          && words.every((word) => card.dataset.words.includes(word));
        card.hidden = !fits;
        count += fits;
      }
      shown.textContent = pattern.replace("{shown}", count);
      none.hidden = count > 0;
    };
    search.addEventListener("input", filter);
    layer.addEventListener("change", filter);
    for (const chip of all(".chip[data-status]")) chip.addEventListener("click", () => {
      status = chip.dataset.status;
      all(".chip[data-status]").forEach((other) => other.setAttribute("aria-pressed", String(other === chip)));
      filter();
    });
    // A link to a neuron must find it even behind a filter.
    const reveal = () => {
      const card = document.getElementById(decodeURIComponent(location.hash.slice(1)));
      if (card && card.hidden) { search.value = ""; layer.value = ""; all(".chip[data-status='']")[0].click(); card.scrollIntoView(); }
    };
    addEventListener("hashchange", reveal);
  }

  // A link to a finding opens it.
  const open = () => {
    const goal = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (goal && goal.tagName === "DETAILS") { goal.open = true; goal.scrollIntoView(); }
  };
  addEventListener("hashchange", open);
  open();

  // Maps: one neuron at a time over the scene.
  for (const map of all(".mapgrid")) {
    const stage = map.querySelector(".stage"), slider = map.querySelector("input[type=range]");
    const outlines = map.querySelector("input[type=checkbox]"), buttons = all(".choices button", map);
    let current = buttons.find((button) => button.getAttribute("aria-pressed") === "true");
    const show = () => {
      const name = current ? current.dataset.show : "";
      for (const layer of all("[data-layer]", stage)) {
        const mine = layer.dataset.layer === name;
        layer.hidden = !mine || (layer.tagName === "path" && !outlines.checked);
        layer.style.display = layer.hidden ? "none" : "";
        if (mine && layer.tagName !== "path") layer.style.opacity = slider.value / 100;
      }
      stage.classList.toggle("lit", Boolean(current && current.dataset.heat));
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(button === current)));
      all("[data-for]", map).forEach((item) => { item.hidden = item.dataset.for !== name; });
    };
    buttons.forEach((button) => button.addEventListener("click", () => { current = button; show(); }));
    slider.addEventListener("input", show);
    outlines.addEventListener("change", show);
    show();
  }

  // Paper has no buttons: for print everything is unfolded and every map of a chooser stands below it; after, as it was.
  const folded = [];
  addEventListener("beforeprint", () => {
    for (const item of all("details:not([open])")) { item.open = true; folded.push(item); }
    for (const map of all(".mapgrid")) {
      const stage = map.querySelector(".stage"), prints = document.createElement("div");
      prints.className = "prints";
      for (const button of all(".choices button[data-show]", map)) {
        if (!button.dataset.show) continue;
        const figure = document.createElement("figure"), copy = stage.cloneNode(true), caption = document.createElement("figcaption");
        for (const layer of all("[data-layer]", copy)) {
          if (layer.dataset.layer !== button.dataset.show) layer.remove();
          else { layer.hidden = false; layer.style.display = ""; layer.style.opacity = 0.85; }
        }
        copy.classList.toggle("lit", Boolean(button.dataset.heat));
        caption.textContent = [...button.children].map((part) => part.textContent).join(" \u00b7 ");
        figure.append(copy, caption);
        prints.append(figure);
      }
      map.append(prints);
    }
  });
  addEventListener("afterprint", () => {
    for (const item of folded.splice(0)) item.open = false;
    for (const prints of all(".prints")) prints.remove();
  });

  // Live charts take the place of the still pictures.
  if (window.drawChart) for (const holder of all(".chart[data-chart]")) {
    const spec = JSON.parse(document.getElementById(holder.dataset.chart).textContent), live = document.createElement("div");
    const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
    window.drawChart(live, spec, { actions: false, renderer: "svg", ast: true, tooltip: { theme } }).then(() => {
      holder.querySelector(".still").replaceWith(live);
    }).catch(() => {});
  }
})();
