"use strict";
// Lets a reader sort and filter the page's tables. Without it they read as they stand.
(() => {
  const text = (cell) => cell.textContent.trim();
  const number = (cell) => {
    for (const value of Object.values(cell.dataset)) {
      if (value !== "" && Number.isFinite(Number(value))) return Number(value);
    }
    const found = text(cell).replace("−", "-").replace(/,/g, "").match(/^[<+]?(-?\d+(\.\d+)?)/);
    return found ? Number(found[1]) : null;
  };
  // What has no value is last, whichever way the others go.
  const compare = (column, down) => (a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    const [m, n] = [number(x), number(y)];
    const way = down ? -1 : 1;
    if (m !== null && n !== null) return way * (m - n);
    if (m !== null || n !== null) return m === null ? 1 : -1;
    return way * text(x).localeCompare(text(y));
  };
  const rowsOf = (body) => [...body.rows].filter((row) => !row.matches(".heading, .prose"));
  for (const table of document.querySelectorAll("table.data")) {
    const rows = [...table.tBodies].flatMap(rowsOf);
    if (rows.length < 3) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        for (const body of table.tBodies) {
          const note = body.querySelector(".prose");
          for (const row of rowsOf(body).sort(compare(column, down))) body.insertBefore(row, note);
        }
      });
    });
    if (rows.length < 8) continue;
    const label = document.createElement("label");
    label.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    input.autocomplete = "off";
    const shown = document.createElement("span");
    shown.className = "unit";
    shown.setAttribute("role", "status");
    label.append("Filter ", input, " ", shown);
    table.closest(".scroll").before(label);
    const content = rows.map((row) => row.textContent.toLowerCase());
    input.addEventListener("input", () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let count = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every((word) => content[index].includes(word));
        if (!row.hidden) count += 1;
      });
      for (const body of table.tBodies) {
        body.hidden = rowsOf(body).every((row) => row.hidden);
      }
      shown.textContent = words.length ? `${count} of ${rows.length} rows` : "";
    });
  }
})();
