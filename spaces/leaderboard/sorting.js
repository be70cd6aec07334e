// Sorts a table by the heading that is pressed: numbers and texts, missing figures last either way.
document.addEventListener("click", (event) => {
  const button = event.target.closest?.(".board .titles button");
  if (!button) return;
  const heading = button.closest("th");
  const body = heading.closest("table").tBodies[0];
  const column = [...heading.parentElement.cells].indexOf(heading);
  const falling = heading.getAttribute("aria-sort") === "ascending";
  for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", falling ? "descending" : "ascending");
  const value = (row) => row.cells[column].dataset.value;
  const compare = (one, two) => {
    const [first, second] = [value(one), value(two)];
    if (!first || !second) return !first - !second;
    const order = isNaN(first) || isNaN(second) ? first.localeCompare(second) : first - second;
    return falling ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
});
