"use strict";
// Draws each packed cloud into its canvas and lets it be turned.

// Rows: where the screen's right, down and toward-the-viewer axes lie in the
// cloud's space. z is up; the shape is seen from the front, a little from above
// and from the left.
const START = view(-0.6, 0.35);

function view(around, above) {
  const [c, s, d, t] = [Math.cos(around), Math.sin(around), Math.cos(above), Math.sin(above)];
  return [[c, s, 0], [s * t, -c * t, -d], [s * d, -c * d, t]];
}

function unpack(text) {
  const bytes = Int8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const points = [];
  for (let i = 0; i + 2 < bytes.length; i += 3) {
    points.push([bytes[i] / 127, bytes[i + 1] / 127, bytes[i + 2] / 127]);
  }
  return points;
}

function dot(a, b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

// The three axes after a turn by so many radians to the right and downward.
function turned(axes, right, down) {
  const mix = (u, v, angle) => {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    return [u.map((x, i) => c * x + s * v[i]), v.map((x, i) => c * x - s * u[i])];
  };
  const [x, z] = mix(axes[0], axes[2], right);
  const [y, toward] = mix(axes[1], z, down);
  return [x, y, toward];
}

function start(canvas, points) {
  let axes = START;
  let last = null;

  function draw() {
    const scale = window.devicePixelRatio || 1;
    const size = canvas.clientWidth;
    canvas.width = canvas.height = Math.round(size * scale);
    const pen = canvas.getContext("2d");
    pen.scale(scale, scale);
    const ink = getComputedStyle(canvas).color.match(/\d+/g).slice(0, 3).join(",");
    const seen = points.map((p) => axes.map((axis) => dot(axis, p)));
    seen.sort((a, b) => a[2] - b[2]);
    for (const [x, y, near] of seen) {
      const depth = (near + 1) / 2;
      pen.fillStyle = `rgba(${ink},${(0.15 + 0.85 * depth).toFixed(3)})`;
      pen.beginPath();
      pen.arc(size * (0.5 + 0.46 * x), size * (0.5 + 0.46 * y), 0.9 + 0.9 * depth, 0, 2 * Math.PI);
      pen.fill();
    }
    canvas.dataset.axes = axes.flat().map((value) => value.toFixed(3)).join(" ");
  }

  function turn(right, down) {
    axes = turned(axes, right, down);
    draw();
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const scale = 3 / canvas.clientWidth;
    turn((event.clientX - last[0]) * scale, (event.clientY - last[1]) * scale);
    last = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, () => { last = null; });
  }
  canvas.addEventListener("dblclick", () => {
    axes = START;
    draw();
  });
  canvas.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (!(event.key in steps)) return;
    event.preventDefault();
    turn(0.15 * steps[event.key][0], 0.15 * steps[event.key][1]);
  });
  new ResizeObserver(draw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

const packed = JSON.parse(document.getElementById("clouds").textContent);
for (const canvas of document.querySelectorAll("canvas[data-cloud]")) {
  start(canvas, unpack(packed[Number(canvas.dataset.cloud)]));
}
