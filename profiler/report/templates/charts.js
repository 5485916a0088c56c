"use strict";
// Draws the page's charts from the specifications that it holds, in the theme that it shows.
(() => {
  const themes = JSON.parse(document.getElementById("chart-themes").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const draw = async (figure, theme) => {
    const spec = JSON.parse(figure.querySelector("script").textContent);
    const place = figure.querySelector(".chart");
    const old = figure.view;
    const state = old ? old.getState({ signals: (name) => figure.bound.includes(name), data: () => false }) : null;
    const result = await vegaEmbed(place, spec, {
      ast: true,
      renderer: "svg",
      logLevel: 1, // errors: a layer without rows (a CPU reserves nothing) is none
      config: themes[theme],
      downloadFileName: figure.id,
      actions: { export: true, source: false, compiled: false, editor: false },
    });
    if (old) old.finalize();
    figure.view = result.view;
    figure.bound = (spec.params || []).filter((one) => one.bind).map((one) => one.name);
    if (state) await result.view.setState(state).runAsync();
    // The controls belong to their labels; what a reader sets is told to who cannot see the chart.
    for (const summary of place.querySelectorAll("details > summary")) summary.setAttribute("aria-label", "Save this chart");
    figure.dataset.drawn = theme;
  };
  const drawAll = (theme) => {
    for (const figure of document.querySelectorAll("figure.interactive")) {
      figure.work = (figure.work || Promise.resolve()).then(() => draw(figure, theme));
    }
  };
  drawAll(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => drawAll(dark.matches ? "dark" : "light"));
  addEventListener("beforeprint", () => drawAll("light"));
  addEventListener("afterprint", () => drawAll(dark.matches ? "dark" : "light"));
})();
