// Tables that sort by a click on a heading and show the rows that match; without this script they are plain tables.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], heads = [...table.tHead.rows[0].cells];
  const text = (row, column) => row.cells[column].textContent.trim();
  const key = (row, column) => row.cells[column].dataset.value;
  const named = new Intl.Collator(undefined, { numeric: true });

  function compared(one, other, column) {  // null: one of them has nothing to sort by, and goes last either way
    const first = key(one, column), second = key(other, column);
    if (first !== undefined && second !== undefined) return Number(first) - Number(second);
    return named.compare(text(one, column), text(other, column));
  }

  function sort(column) {
    const rising = heads[column].getAttribute("aria-sort") !== "ascending";
    for (const head of heads) head.removeAttribute("aria-sort");
    heads[column].setAttribute("aria-sort", rising ? "ascending" : "descending");
    const empty = (row) => ["", "-"].includes(text(row, column));
    body.append(...[...rows].sort((one, other) =>
      empty(one) - empty(other) || (rising ? 1 : -1) * compared(one, other, column)));
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });

  if (!("filtered" in table.dataset)) continue;
  const bar = document.createElement("div"), field = document.createElement("input");
  const count = document.createElement("output"), choices = [];
  bar.className = "filter";
  field.type = "search";
  field.placeholder = "filter rows";
  field.setAttribute("aria-label", "filter the rows of this table: all words must be in a row");
  bar.append(field);
  for (const name of table.dataset.facets.split("|").filter(Boolean)) {
    const column = heads.findIndex((head) => head.textContent === name);
    const values = column < 0 ? [] : [...new Set(rows.map((row) => text(row, column)))];
    if (values.length < 2) continue;
    const select = document.createElement("select");
    select.setAttribute("aria-label", `rows of one ${name}`);
    select.append(new Option(`${name}: all`, ""), ...values.sort(named.compare).map((value) => new Option(`${name}: ${value}`, value)));
    bar.append(select);
    choices.push([column, select]);
  }
  bar.append(count);
  table.parentElement.before(bar);

  function filter() {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const row of rows) {
      const content = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !(words.every((word) => content.includes(word)) &&
        choices.every(([column, select]) => !select.value || text(row, column) === select.value));
      shown += !row.hidden;
    }
    count.value = `${shown} of ${rows.length} rows`;
  }
  for (const control of [field, ...choices.map(([, select]) => select)]) control.addEventListener("input", filter);
  filter();
}
