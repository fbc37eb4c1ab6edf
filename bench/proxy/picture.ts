/**
 * The suite's picture, SVG written by hand: a panel per case with a bar per proxy, CPU per request;
 * a mark for the spread of the runs, a line where nginx is. Colours are fixed, so that it reads on
 * a light page and on a dark one.
 */
import { rounded, type BenchReport, type FigureResult } from "../measure.ts";
import { CASES } from "./cases.ts";
import { figureName } from "./figures.ts";
import { rivalsIn } from "./report.ts";

/** The whole picture; cases without figures are left out. */
export function svgOf(report: BenchReport): string {
  const figures = new Map(
    report.figures.filter(({ median }) => Number.isFinite(median)).map((one) => [one.name, one]),
  );
  const panels = CASES.flatMap(({ name, about }) => {
    const bars = rivalsIn(name, figures).flatMap((rival): Bar[] => {
      const figure = figures.get(figureName(name, rival, "CPU"));
      return figure === undefined ? [] : [{ rival, figure }];
    });
    return bars.length === 0 ? [] : [{ title: about, bars }];
  });
  const barsMost = Math.max(...panels.map(({ bars }) => bars.length), 0);
  const panelHeight = TITLE_HEIGHT + barsMost * BAR_STEP + PANEL_GAP;
  const rows = Math.ceil(panels.length / COLUMNS);
  const height = HEAD_HEIGHT + rows * panelHeight + MARGIN;
  const { machine, samples } = report;
  const where =
    `Medians of ${samples.length} runs, least to greatest as a line; dashed: nginx; node-net: no proxy, ` +
    "a bare socket in Node that answers. " +
    `${machine.cores} cores (${machine.cpu}), Linux ${machine.kernel}, Node ${machine.node}`;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${height}" ` +
      `viewBox="0 0 ${WIDTH} ${height}" font-family="Helvetica, Arial, sans-serif">`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    text({ x: MARGIN, y: 30, size: 18, weight: 700 }, "CPU per request, µs"),
    text({ x: MARGIN, y: 50, size: 11, fill: GREY }, where),
    ...panels.map((panel, at) => {
      const x = MARGIN + (at % COLUMNS) * (PANEL_WIDTH + MARGIN);
      const y = HEAD_HEIGHT + Math.floor(at / COLUMNS) * panelHeight;
      return `<g transform="translate(${x} ${y})">${panelSvg(panel)}</g>`;
    }),
    "</svg>\n",
  ].join("\n");
}

interface Bar {
  readonly rival: string;
  readonly figure: FigureResult;
}

function panelSvg(panel: { readonly title: string; readonly bars: readonly Bar[] }): string {
  const { title, bars } = panel;
  const most = Math.max(...bars.map(({ figure }) => figure.greatest));
  const scale = (value: number): number => round((value / most) * BAR_WIDTH_MAX);
  const nginx = bars.find(({ rival }) => rival === "nginx")?.figure.median;
  const parts = [text({ x: 0, y: 12, size: 12, weight: 700 }, title)];
  for (const [at, { rival, figure }] of bars.entries()) {
    const y = TITLE_HEIGHT + at * BAR_STEP;
    const middle = y + BAR_HEIGHT / 2;
    const { median, least, greatest } = figure;
    const ratio = nginx === undefined || rival === "nginx" ? "" : `  ${rounded(median / nginx)}x`;
    parts.push(
      text({ x: NAME_WIDTH - 6, y: y + 10, size: 11, anchor: "end" }, rival),
      `<rect x="${NAME_WIDTH}" y="${y}" width="${scale(median)}" height="${BAR_HEIGHT}" ` +
        `fill="${rival === "patina" ? ACCENT : rival === "nginx" ? DARK : LIGHT}"/>`,
      `<path d="M${NAME_WIDTH + scale(least)} ${middle}H${NAME_WIDTH + scale(greatest)}" ` +
        `stroke="${GREY}" stroke-width="2"/>`,
      // Behind the line of nginx, where the bar does not reach it.
      text(
        {
          x: NAME_WIDTH + scale(Math.max(greatest, nginx ?? 0)) + 5,
          y: y + 10,
          size: 11,
          fill: GREY,
        },
        `${rounded(median)}${ratio}`,
      ),
    );
  }
  if (nginx !== undefined) {
    const x = NAME_WIDTH + scale(nginx);
    const bottom = TITLE_HEIGHT + bars.length * BAR_STEP;
    parts.push(
      `<path d="M${x} ${TITLE_HEIGHT - 3}V${bottom}" stroke="${DARK}" stroke-dasharray="3 3"/>`,
    );
  }
  return parts.join("\n");
}

function text(
  place: {
    readonly x: number;
    readonly y: number;
    readonly size: number;
    readonly weight?: number;
    readonly fill?: string;
    readonly anchor?: "end";
  },
  content: string,
): string {
  const { x, y, size, weight = 400, fill = "#1b1f23", anchor = "start" } = place;
  const escaped = content.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  return (
    `<text x="${x}" y="${y}" font-size="${size}" font-weight="${weight}" fill="${fill}" ` +
    `text-anchor="${anchor}" xml:space="preserve">${escaped}</text>`
  );
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

const WIDTH = 1_080;
const MARGIN = 24;
const COLUMNS = 3;
const PANEL_WIDTH = (WIDTH - MARGIN * (COLUMNS + 1)) / COLUMNS;
const PANEL_GAP = 22;
const HEAD_HEIGHT = 76;
const TITLE_HEIGHT = 22;
const BAR_HEIGHT = 12;
const BAR_STEP = 18;
const NAME_WIDTH = 74;
/** Room for the label behind the longest bar. */
const BAR_WIDTH_MAX = PANEL_WIDTH - NAME_WIDTH - 92;
const ACCENT = "#1f8a70";
const DARK = "#4a5560";
const LIGHT = "#b8c2cc";
const GREY = "#6b7680";
