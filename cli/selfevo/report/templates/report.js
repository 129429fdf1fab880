// Draws the plots: each entry of the JSON above belongs to the element with its id. Colours of text and lines are the
// style sheet's, so that they follow the reader's light or dark mode.
for (const figure of JSON.parse(document.getElementById("figures").textContent)) {
  Plotly.newPlot(figure.id, figure.data, figure.layout, { responsive: true, displayModeBar: false });
}
