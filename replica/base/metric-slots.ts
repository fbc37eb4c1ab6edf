/**
 * Metrics in shared memory: declared once, written by any thread, read by the one that exports them.
 *
 * One `SharedArrayBuffer` holds a bank of `Float64` cells per writer thread. Each bank has a single
 * writer, so an addition is a plain load and store (a few nanoseconds, nothing is allocated) and
 * the reader adds the banks up. Every series exists from the start: label values are declared,
 * hence bounded. A reader may see one bank a few nanoseconds later than another; each cell by
 * itself is whole, because it is 8 bytes and aligned.
 *
 * Layout of a bank, in declaration order, label combinations in declared order:
 *
 * | type          | cells of one series                                     |
 * |---------------|---------------------------------------------------------|
 * | counter/gauge | value                                                   |
 * | histogram     | one count per bucket, count above the last bucket, sum  |
 *
 * This does not export anything: rendering belongs to whoever reads `snapshot()`.
 */
import { assert } from "./errors.ts";

/** One metric with all the label values it can ever have. */
export interface MetricDeclaration {
  /** Full name with unit: `patina_swim_probes_total`. */
  readonly name: string;
  readonly help: string;
  readonly type: "counter" | "gauge" | "histogram";
  /** Label name to its possible values; the series are all combinations. */
  readonly labels?: Readonly<Record<string, readonly string[]>>;
  /** Upper bounds (inclusive) of a histogram's buckets, ascending, without infinity. */
  readonly buckets?: readonly number[];
  /** How a gauge's banks become one value; default `sum`. */
  readonly combine?: "sum" | "max";
}

/** Label name to value, for one series. */
export type MetricLabels = Readonly<Record<string, string>>;

/** Adds to a counter. `count` must not be negative; default 1. */
export interface MetricCounter {
  add(count?: number): void;
}

/** Sets this writer's share of a gauge. */
export interface MetricGauge {
  set(value: number): void;
}

/** Adds one observation in the metric's base unit. */
export interface MetricHistogram {
  observe(value: number): void;
}

/** Plain data that rebuilds the same slots in another thread: pass it as `workerData`. */
export interface MetricSlotsPlan {
  readonly buffer: SharedArrayBuffer;
  readonly declarations: readonly MetricDeclaration[];
  readonly banks: number;
}

/** One series as it stands. Histograms carry `histogram`, the others `value`. */
export interface SeriesSnapshot {
  readonly labels: MetricLabels;
  /** Counter or gauge value; a histogram's number of observations. */
  readonly value: number;
  readonly histogram?: HistogramSnapshot;
}

/** A histogram's series; `counts` has one more entry than there are buckets; not cumulative. */
export interface HistogramSnapshot {
  readonly counts: readonly number[];
  readonly sum: number;
}

/** One metric with all of its series. */
export interface MetricSnapshot {
  readonly declaration: MetricDeclaration;
  readonly series: readonly SeriesSnapshot[];
}

/** Where a series lives inside each bank. */
interface SeriesPlace {
  readonly labels: MetricLabels;
  readonly offset: number;
}

interface MetricPlace {
  readonly declaration: MetricDeclaration;
  /** Declared order. */
  readonly series: readonly SeriesPlace[];
  readonly seriesByKey: ReadonlyMap<string, SeriesPlace>;
}

/** All metrics of a process: one bank of cells per writer thread. */
export class MetricSlots {
  readonly #plan: MetricSlotsPlan;
  readonly #cells: Float64Array;
  readonly #placeByName: ReadonlyMap<string, MetricPlace>;
  /** Cells per bank, a multiple of a cache line so that writers never share one. */
  readonly #bankCells: number;

  private constructor(plan: MetricSlotsPlan) {
    const { placeByName, bankCells } = placeMetrics(plan.declarations);
    this.#plan = plan;
    this.#placeByName = placeByName;
    this.#bankCells = bankCells;
    this.#cells = new Float64Array(plan.buffer);
    assert(this.#cells.length >= bankCells * plan.banks, "metric buffer fits its declarations");
  }

  /** Creates zeroed slots for `banks` writer threads. Fails on a duplicate or malformed declaration. */
  static allocate(declarations: readonly MetricDeclaration[], banks: number): MetricSlots {
    assert(Number.isInteger(banks) && banks > 0, "metric slots have at least one bank");
    const { bankCells } = placeMetrics(declarations);
    const buffer = new SharedArrayBuffer(Math.max(bankCells * banks * 8, 8));
    return new MetricSlots({ buffer, declarations, banks });
  }

  /** The same slots in another thread, from the `plan` of the thread that allocated them. */
  static attach(plan: MetricSlotsPlan): MetricSlots {
    return new MetricSlots(plan);
  }

  /** Plain data for `MetricSlots.attach`. */
  get plan(): MetricSlotsPlan {
    return this.#plan;
  }

  /**
   * The writer of one bank. Exactly one thread may write a bank; a thread that replaces a dead one
   * takes over its bank, so that counters go on.
   */
  writer(bank: number): MetricWriter {
    assert(bank >= 0 && bank < this.#plan.banks, `metric bank ${bank} exists`);
    const start = bank * this.#bankCells;
    const cells = this.#cells.subarray(start, start + this.#bankCells);
    return new MetricWriter(cells, this.#placeByName);
  }

  /** Every series, banks combined. Cost: all cells of all banks. */
  snapshot(): readonly MetricSnapshot[] {
    return [...this.#placeByName.values()].map(({ declaration, series }) => ({
      declaration,
      series: series.map((place) => this.#readSeries(declaration, place)),
    }));
  }

  #readSeries(declaration: MetricDeclaration, { labels, offset }: SeriesPlace): SeriesSnapshot {
    if (declaration.type !== "histogram") {
      return { labels, value: this.#combine(offset, declaration.combine ?? "sum") };
    }
    const bounds = declaration.buckets?.length ?? 0;
    const counts: number[] = [];
    let value = 0;
    for (let index = 0; index <= bounds; index++) {
      const count = this.#combine(offset + index, "sum");
      counts.push(count);
      value += count;
    }
    return { labels, value, histogram: { counts, sum: this.#combine(offset + bounds + 1, "sum") } };
  }

  #combine(offset: number, how: "sum" | "max"): number {
    let combined = how === "max" ? -Infinity : 0;
    for (let bank = 0; bank < this.#plan.banks; bank++) {
      const value = this.#cells[bank * this.#bankCells + offset] ?? 0;
      combined = how === "max" ? Math.max(combined, value) : combined + value;
    }
    return combined;
  }
}

/** One thread's handles. Resolve them once at start: a lookup by name is not for the hot path. */
export class MetricWriter {
  readonly #cells: Float64Array;
  readonly #placeByName: ReadonlyMap<string, MetricPlace>;

  /** Use `MetricSlots.writer`. */
  constructor(cells: Float64Array, placeByName: ReadonlyMap<string, MetricPlace>) {
    this.#cells = cells;
    this.#placeByName = placeByName;
  }

  /** The counter `name` with exactly its declared labels. Fails on an undeclared name or value. */
  counter(name: string, labels: MetricLabels = {}): MetricCounter {
    return new Counter(this.#cells, this.#find(name, "counter", labels).offset);
  }

  /** The gauge `name` with exactly its declared labels. Fails on an undeclared name or value. */
  gauge(name: string, labels: MetricLabels = {}): MetricGauge {
    return new Gauge(this.#cells, this.#find(name, "gauge", labels).offset);
  }

  /** The histogram `name` with exactly its declared labels. Fails as `counter` does. */
  histogram(name: string, labels: MetricLabels = {}): MetricHistogram {
    const { offset } = this.#find(name, "histogram", labels);
    const bounds = this.#placeByName.get(name)?.declaration.buckets ?? [];
    return new Histogram(this.#cells, offset, Float64Array.from(bounds));
  }

  /**
   * Sets this writer's share of every gauge to 0: what a thread that died had open is gone with it,
   * while what it counted did happen.
   */
  resetGauges(): void {
    for (const { declaration, series } of this.#placeByName.values()) {
      if (declaration.type !== "gauge") continue;
      for (const { offset } of series) this.#cells[offset] = 0;
    }
  }

  #find(name: string, type: MetricDeclaration["type"], labels: MetricLabels): SeriesPlace {
    const metric = this.#placeByName.get(name);
    assert(metric?.declaration.type === type, `metric ${name} is a declared ${type}`);
    const series = metric.seriesByKey.get(seriesKey(metric.declaration, labels));
    assert(series !== undefined, `metric ${name} has series ${JSON.stringify(labels)}`);
    return series;
  }
}

class Counter implements MetricCounter {
  readonly #cells: Float64Array;
  readonly #offset: number;

  constructor(cells: Float64Array, offset: number) {
    this.#cells = cells;
    this.#offset = offset;
  }

  add(count = 1): void {
    this.#cells[this.#offset] = (this.#cells[this.#offset] ?? 0) + count;
  }
}

class Gauge implements MetricGauge {
  readonly #cells: Float64Array;
  readonly #offset: number;

  constructor(cells: Float64Array, offset: number) {
    this.#cells = cells;
    this.#offset = offset;
  }

  set(value: number): void {
    this.#cells[this.#offset] = value;
  }
}

class Histogram implements MetricHistogram {
  readonly #cells: Float64Array;
  readonly #offset: number;
  readonly #bounds: Float64Array;

  constructor(cells: Float64Array, offset: number, bounds: Float64Array) {
    this.#cells = cells;
    this.#offset = offset;
    this.#bounds = bounds;
  }

  observe(value: number): void {
    const bounds = this.#bounds;
    let index = 0;
    // A dozen buckets at most, and small values are the common ones: no binary search.
    while (index < bounds.length && value > (bounds[index] ?? Infinity)) index++;
    const bucket = this.#offset + index;
    this.#cells[bucket] = (this.#cells[bucket] ?? 0) + 1;
    const sum = this.#offset + bounds.length + 1;
    this.#cells[sum] = (this.#cells[sum] ?? 0) + value;
  }
}

function placeMetrics(declarations: readonly MetricDeclaration[]): {
  placeByName: ReadonlyMap<string, MetricPlace>;
  bankCells: number;
} {
  const placeByName = new Map<string, MetricPlace>();
  let next = 0;
  for (const declaration of declarations) {
    checkDeclaration(declaration);
    assert(!placeByName.has(declaration.name), `metric ${declaration.name} is declared once`);
    const width = declaration.type === "histogram" ? (declaration.buckets?.length ?? 0) + 2 : 1;
    const series = labelCombinations(declaration).map((labels, index) => ({
      labels,
      offset: next + index * width,
    }));
    next += series.length * width;
    const seriesByKey = new Map(series.map((one) => [seriesKey(declaration, one.labels), one]));
    placeByName.set(declaration.name, { declaration, series, seriesByKey });
  }
  return { placeByName, bankCells: Math.ceil(next / CACHE_LINE_CELLS) * CACHE_LINE_CELLS };
}

function checkDeclaration(declaration: MetricDeclaration): void {
  const { name, type, buckets } = declaration;
  assert(/^[a-z][a-z0-9_]*$/.test(name), `metric name ${name} is well formed`);
  assert((type === "histogram") === (buckets !== undefined), `metric ${name}: histogram = buckets`);
  const isAscending = buckets?.every((bound, at) => at === 0 || bound > (buckets[at - 1] ?? bound));
  assert(isAscending !== false, `metric ${name} has ascending buckets`);
  for (const [label, values] of Object.entries(declaration.labels ?? {})) {
    assert(new Set(values).size === values.length, `metric ${name}: values of ${label} differ`);
  }
}

function labelCombinations(declaration: MetricDeclaration): MetricLabels[] {
  let combinations: MetricLabels[] = [{}];
  for (const [label, values] of Object.entries(declaration.labels ?? {})) {
    combinations = combinations.flatMap((labels) =>
      values.map((value) => ({ ...labels, [label]: value })),
    );
  }
  return combinations;
}

/** Declared labels in declared order; a missing or extra label gives a key that is never found. */
function seriesKey(declaration: MetricDeclaration, labels: MetricLabels): string {
  const names = Object.keys(declaration.labels ?? {});
  const extra = Object.keys(labels).length - names.length;
  return JSON.stringify([extra, ...names.map((name) => labels[name] ?? null)]);
}

/** 64 bytes: two writers on one line would slow each other down by an order of magnitude. */
const CACHE_LINE_CELLS = 8;
