// What a screen reader misses in Datasette's own pages: their language, where the content is, names
// of fields, and headings that leave no level out.
const NAMES = {column: "Column", op: "Condition", value: "Value", sort: "Sorted by"};

document.documentElement.lang = "en";
document.querySelector("section.content")?.setAttribute("role", "main");
for (const field of document.querySelectorAll("[name^=_filter_], [name=_sort]"))
  field.setAttribute("aria-label", NAMES[field.name.match(/column|op|value|sort/)[0]]);
// The editor of SQL is made when all is loaded.
addEventListener("load", () =>
  document.querySelector(".CodeMirror textarea")?.setAttribute("aria-label", "SQL"));
if (!document.querySelector("h2"))
  for (const heading of document.querySelectorAll("h3")) heading.setAttribute("aria-level", "2");
