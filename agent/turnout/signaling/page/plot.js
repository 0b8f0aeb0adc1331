// A line plot on a canvas: the last `length` samples of one or two series, the newest at the right.

export class Plot {
  #canvas;
  #series;
  #length;
  #bottom;
  #top;
  #unit;

  // `top` is the least top of the scale, it grows with the values; null samples leave a gap.
  constructor(canvas, { series = 1, length = 120, bottom = 0, top, unit = "" }) {
    this.#canvas = canvas;
    this.#length = length;
    this.#bottom = bottom;
    this.#top = top;
    this.#unit = unit;
    this.#series = Array.from({ length: series }, () => []);
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  push(...values) {
    values.forEach((value, index) => {
      const samples = this.#series[index];
      samples.push(value);
      if (samples.length > this.#length) samples.shift();
    });
    this.draw();
  }

  clear() {
    for (const samples of this.#series) samples.length = 0;
    this.draw();
  }

  draw() {
    const { clientWidth: width, clientHeight: height } = this.#canvas;
    const scale = window.devicePixelRatio;
    this.#canvas.width = width * scale;
    this.#canvas.height = height * scale;
    const pen = this.#canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.#canvas);
    const top = this.#niceTop();
    this.#drawScale(pen, width, height, top, style);
    this.#series.forEach((samples, index) => {
      const colour = style.getPropertyValue(index ? "--series-two" : "--series-one");
      this.#drawSeries(pen, samples, width, height, top, colour);
    });
  }

  // 1, 2 or 5 times a power of ten, above everything that is shown.
  #niceTop() {
    const most = Math.max(this.#top, ...this.#series.flat().filter((one) => one !== null));
    if (most === this.#top) return most;
    const power = 10 ** Math.floor(Math.log10(most));
    return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= most);
  }

  #drawScale(pen, width, height, top, style) {
    pen.strokeStyle = style.getPropertyValue("--line");
    pen.lineWidth = 1;
    for (const y of [0.5, Math.round(height / 2) + 0.5, height - 0.5]) {
      pen.beginPath();
      pen.moveTo(0, y);
      pen.lineTo(width, y);
      pen.stroke();
    }
    if (!this.#unit) return;
    pen.fillStyle = style.getPropertyValue("--quiet");
    pen.font = `11px ${style.fontFamily}`;
    pen.textBaseline = "top";
    pen.fillText(`${top} ${this.#unit}`, 0, 4);
  }

  #drawSeries(pen, samples, width, height, top, colour) {
    const inset = 4; // room for the dot
    const x = (index) => width - inset - ((samples.length - 1 - index) * (width - inset)) / (this.#length - 1);
    const y = (value) =>
      height - inset - ((Math.min(value, top) - this.#bottom) / (top - this.#bottom)) * (height - 2 * inset);
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 2;
    pen.lineJoin = "round";
    pen.beginPath();
    let isDown = false;
    samples.forEach((value, index) => {
      if (value === null) isDown = false;
      else if (isDown) pen.lineTo(x(index), y(value));
      else pen.moveTo(x(index), y(value));
      if (value !== null) isDown = true;
    });
    pen.stroke();
    const last = samples.at(-1);
    if (last === undefined || last === null) return;
    pen.beginPath();
    pen.arc(x(samples.length - 1), y(last), 3, 0, 2 * Math.PI);
    pen.fill();
  }
}
