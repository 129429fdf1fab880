// Draws the plots: each entry of the JSON in the page belongs to the element with its id. Colours of text and lines are
// the style sheet's, so that they follow the reader's light or dark mode. A page that brings itself up to date says so.
function draw() {
  for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
    Plotly.react(figure.id, figure.data, figure.layout, { responsive: true, displayModeBar: false });
  }
}
draw();
document.addEventListener("fresh", draw);
