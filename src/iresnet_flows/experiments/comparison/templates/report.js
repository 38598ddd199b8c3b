"use strict";

const PRINTED = { width: 320, height: 260 };

function sort(button) {
  const head = button.closest("th");
  const heads = [...head.parentNode.children];
  const column = heads.indexOf(head);
  const body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") === "ascending";
  const value = (row) => row.children[column].dataset.value ?? "";
  const rows = [...body.rows].sort((a, b) => {
    const [p, q] = [value(a), value(b)];
    if (!p || !q) return !p - !q;
    const order = isNaN(p) || isNaN(q) ? p.localeCompare(q) : p - q;
    return down ? -order : order;
  });
  heads.forEach((other) => other.setAttribute("aria-sort", "none"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

function draw(div) {
  const { data, layout } = JSON.parse(div.nextElementSibling.textContent);
  Plotly.newPlot(div, data, layout, { responsive: true, displayModeBar: false });
}

function toggle(key) {
  const shown = key.getAttribute("aria-pressed") !== "true";
  key.setAttribute("aria-pressed", String(shown));
  for (const div of key.closest("section").querySelectorAll(".plot")) {
    const lines = div.data.flatMap((trace, i) => (trace.meta === key.dataset.model ? [i] : []));
    if (lines.length) Plotly.restyle(div, { visible: shown }, lines);
  }
}

const plots = [...document.querySelectorAll(".plot")];
plots.forEach(draw);

for (const button of document.querySelectorAll(".sortable thead button"))
  button.addEventListener("click", () => sort(button));
for (const key of document.querySelectorAll(".key"))
  key.addEventListener("click", () => toggle(key));

const { height } = plots[0]?.layout ?? {};
addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((part) => (part.open = true));
  plots.forEach((div) => Plotly.relayout(div, PRINTED));
});
addEventListener("afterprint", () => {
  plots.forEach((div) => Plotly.relayout(div, { width: null, height, autosize: true }));
});
