// What the page does beside being read: copy a command, look at one bar of a chart, stay current.
(() => {
  const EVERY_MS = 60_000, COUNTING_MS = 3_000;
  document.documentElement.classList.add("has-script");

  // Copy buttons: beside each command.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest("button.copy");
    if (!button) return;
    let said = "copied";
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
    } catch {
      said = "not allowed here";
    }
    const before = button.dataset.label ??= button.textContent;
    button.textContent = said;
    setTimeout(() => { button.textContent = before; }, 1500);
  });

  // "/" goes to the search.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    document.querySelector("header input[type=search]")?.focus();
  });

  // A chart's cursor: the slider below it, or the mouse above it.
  function show(figure, number) {
    const { points, places, names } = JSON.parse(figure.querySelector("script").textContent);
    const [when, ...values] = points[number];
    const text = [when, ...values.map((value, place) => `${names[place]} ${value}`)].join("  ");
    figure.querySelector("output").textContent = text;
    figure.querySelector(".cursor").setAttribute("aria-valuetext", text);
    const plot = figure.querySelector(".plot");
    const cross = plot.querySelector(".cross") ?? plot.appendChild(document.createElement("div"));
    cross.className = "cross";
    cross.style.left = `${places[number]}%`;
  }
  document.addEventListener("input", (event) => {
    const figure = event.target.matches(".cursor") && event.target.closest("figure");
    if (figure) show(figure, Number(event.target.value));
  });
  document.addEventListener("pointermove", (event) => {
    const svg = event.target.closest?.("figure[data-chart] svg");
    if (!svg) return;
    const figure = svg.closest("figure"), box = svg.getBoundingClientRect();
    const { places } = JSON.parse(figure.querySelector("script").textContent);
    const percent = (event.clientX - box.left) / box.width * 100;
    let nearest = 0;
    places.forEach((place, number) => {
      if (Math.abs(place - percent) < Math.abs(places[nearest] - percent)) nearest = number;
    });
    figure.querySelector(".cursor").value = nearest;
    show(figure, nearest);
  });

  // Stay current without a flicker: only the parts that changed are put in the place of the old ones,
  // open details stay open, and the keyboard's place is kept.
  function replace(old, fresh) {
    const open = [...old.querySelectorAll("details")].map((each) => each.open);
    fresh.querySelectorAll("details").forEach((each, place) => { each.open = open[place] ?? each.open; });
    const focused = old.contains(document.activeElement) && document.activeElement;
    const place = focused ? [...old.querySelectorAll("a, button, input, summary")].indexOf(focused) : -1;
    old.replaceWith(fresh);
    if (place >= 0) [...fresh.querySelectorAll("a, button, input, summary")][place]?.focus({ preventScroll: true });
  }
  const textOf = (element) => {
    const copy = element.cloneNode(true);
    copy.querySelectorAll("details").forEach((each) => each.removeAttribute("open"));
    copy.querySelectorAll(".cross").forEach((each) => each.remove());
    copy.querySelectorAll("output").forEach((each) => { each.textContent = ""; });
    copy.querySelectorAll("[aria-valuetext]").forEach((each) => each.removeAttribute("aria-valuetext"));
    return copy.outerHTML;
  };
  async function refresh() {
    let wait = EVERY_MS;
    try {
      const answer = await fetch(location.href, { cache: "no-store" });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const parts = [...document.querySelectorAll("[data-part]")];
      const fresh = [...page.querySelectorAll("[data-part]")];
      const names = (list) => list.map((each) => each.dataset.part).join();
      if (names(parts) !== names(fresh)) {
        document.querySelector("main").replaceWith(page.querySelector("main"));
      } else {
        parts.forEach((old, place) => { if (textOf(old) !== textOf(fresh[place])) replace(old, fresh[place]); });
      }
      document.querySelector("main").dataset.drawn = page.querySelector("main").dataset.drawn;
      document.title = page.title;
      document.getElementById("unreached").hidden = true;
    } catch {
      document.getElementById("unreached").hidden = false;
    }
    if (document.querySelector("main").dataset.drawn === "no") wait = COUNTING_MS;
    document.documentElement.dataset.refreshes = Number(document.documentElement.dataset.refreshes ?? 0) + 1;
    setTimeout(refresh, wait);
  }
  const first = document.querySelector("main").dataset.drawn === "no" ? COUNTING_MS : EVERY_MS;
  setTimeout(refresh, first);
  window.refreshPage = refresh;
})();
