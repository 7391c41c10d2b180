"use strict";
// Two people in one window. The right pane comes once the left one is on a node, and looks for another.

const [left, right] = ["left", "right"].map((id) => document.getElementById(id));
const nodes = new Set(); // that either was ever on

function openRight(avoid) {
  if (!right.src) right.src = `${right.dataset.src}&avoid=${encodeURIComponent(avoid)}`;
}

window.addEventListener("message", (event) => {
  const pane = [left, right].find((frame) => frame.contentWindow === event.source);
  if (event.origin !== location.origin || !pane) return;
  nodes.add(event.data.node);
  openRight(event.data.node);
  document.getElementById("alone").hidden = pane === left || nodes.size > 1;
});
setTimeout(openRight, 5000, "");
