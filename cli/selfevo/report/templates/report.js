// Draws the plots: each entry of the JSON in the page belongs to the element with its id. Colours of text and lines are
// the style sheet's. On a phone long parts are folded at first; a plot in one is drawn when it is opened.
function draw(within) {
  for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
    const place = document.getElementById(figure.id);
    if (within.contains(place) && !place.closest("details:not([open])")) {
      Plotly.react(place, figure.data, figure.layout, { responsive: true, displayModeBar: false });
    }
  }
}
if (matchMedia("(max-width: 600px)").matches) {
  for (const part of document.querySelectorAll("details.fold")) part.open = false;
}
draw(document);
document.addEventListener("fresh", () => draw(document));
document.addEventListener("toggle", event => { if (event.target.open) draw(event.target); }, true);
