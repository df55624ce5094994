// One run that is looked at: what it has measured so far, and what it tells while it goes on.

import { Failure, get, listen, pause, sentence, wasStopped } from "../../api";
import { pointOf, Series } from "./series";
import type { RunSummary } from "./types";

export interface Evaluation {
  step: number;
  metrics: Record<string, number>;
  sample: string | null;
  improved?: boolean;
}

type Told = Record<string, unknown>;

interface Detail {
  curve?: Told[];
  evaluations?: Evaluation[];
  log?: string;
  [group: string]: unknown;
}

const GROUPS = ["model", "tokenizer", "data", "training"];

const MOST_SAMPLES = 200;
const MOST_LOG = 20_000;
/** How often what has come is drawn: an event a millisecond must not draw a thousand times a second. */
const DRAW_MS = 250;

export class Watch {
  readonly steps = new Series();
  readonly measured = new Series(1000);
  /** Those with a sample, the newest last; the oldest are let go. */
  evaluations = $state.raw<Evaluation[]>([]);
  /** Grows whenever something was measured: what is drawn from the series reads it. */
  version = $state(0);
  /** What the run says of itself: its model, its data, its settings. */
  groups = $state.raw<[string, Record<string, unknown>][]>([]);
  log = $state("");
  problem = $state("");
  warning = $state("");
  /** How it stands, as far as the events tell it. */
  status = $state.raw<Partial<RunSummary>>({});
  /** Whether the server can't be heard; it is asked again and again. */
  isLost = $state(false);
  isKnown = $state(false);
  step = $state(0);
  /** Seconds of training so far. */
  seconds = $state(0);

  private stopped = new AbortController();
  private later: ReturnType<typeof setTimeout> | undefined;
  private coming: Evaluation[] = [];
  private isFollowing = false;
  /** Whether it was said that there is no such run any more. */
  private isGone = false;

  /** `onchange` is told when the run began, saved, ended or went: what the list says of it is out of date then. */
  constructor(readonly name: string, private readonly onchange: () => void = () => {}) {}

  /** Ask for what is there, and listen while it goes on; where it began to go on again, listen again. */
  async open(isLive: boolean): Promise<void> {
    if (this.isFollowing || (this.isKnown && !isLive)) return;
    this.isFollowing = true;
    const { signal } = this.stopped;
    this.problem = "";
    try {
      await this.ask(signal, !isLive);
      if (isLive) await this.follow(signal);
    } catch (error) {
      if (!wasStopped(error)) this.fail(error);
    } finally {
      if (!signal.aborted) this.isFollowing = false;
    }
  }

  private fail(error: unknown): void {
    this.problem = sentence(error);
    if (this.isGone || !(error instanceof Failure) || error.status !== 404) return;
    this.isGone = true; // said once: a list that has it nevertheless would be asked for without end
    this.onchange();
  }

  /** Stop listening until it is opened again: a browser keeps few connections, and a tab that nobody sees needs none. */
  pause(): void {
    this.close();
    this.stopped = new AbortController();
    this.isFollowing = false;
  }

  close(): void {
    this.stopped.abort();
    clearTimeout(this.later);
    this.later = undefined;
  }

  private async ask(signal: AbortSignal, withCurve = true): Promise<void> {
    for (let wait = 500; ; wait = Math.min(8000, wait * 2)) {
      try {
        this.take(await get<Detail>("/api/run", { name: this.name }, signal), withCurve);
        this.isLost = false;
        this.isKnown = true;
        return;
      } catch (error) {
        if (!(error instanceof Failure) || error.status !== 0) throw error;
        this.isLost = true;
      }
      await pause(wait, signal);
    }
  }

  /** Listen until the run has ended; a server that goes and comes back is found again. */
  private async follow(signal: AbortSignal): Promise<void> {
    let hasEnded = false;
    while (!hasEnded) {
      try {
        await listen("/api/run/events", { name: this.name }, (name, data: Told) => {
          this.isLost = name === "lost";
          hasEnded = name === "ended";
          this.hear(name, data);
        }, signal);
      } catch (error) {
        if (!(error instanceof Failure) || error.status !== 0) throw error;
      }
      if (hasEnded) break;
      this.isLost = true; // closed before the end was told: the server went down in order
      await pause(700, signal);
    }
    await this.ask(signal);
    this.onchange();
  }

  private hear(name: string, data: Told): void {
    if (name === "started") {
      if (this.steps.told || this.measured.told) this.empty();
      this.onchange();
    } else if (name === "state") {
      if (typeof data.log === "string") this.log = data.log.slice(-MOST_LOG);
      if (data.state !== this.status.state) this.onchange();
      this.status = { ...this.status, ...data };
    } else if (name === "stepped") this.steps.add(pointOf(data));
    else if (name === "evaluated") this.judge(data as unknown as Evaluation & Told);
    else if (name === "saved") this.onchange();
    else if (name === "warned") this.warning = String(data.text ?? "");
    else if (name === "ended") this.status = data as Partial<RunSummary>;
    this.later ??= setTimeout(() => this.draw(), DRAW_MS);
  }

  /** Put what the server knows of a run that doesn't go on, or that will be told again, in the place of what was. */
  private take(detail: Detail, withCurve: boolean): void {
    const { curve, evaluations, log, ...rest } = detail;
    if (withCurve) {
      this.empty();
      for (const told of curve ?? []) this.steps.add(pointOf(told));
      for (const one of evaluations ?? []) this.judge(one as Evaluation & Told);
    }
    if (typeof log === "string") this.log = log.slice(-MOST_LOG);
    this.groups = Object.entries(rest).filter(([name, group]) => GROUPS.includes(name) && typeof group === "object" && group !== null) as typeof this.groups;
    this.status = rest as Partial<RunSummary>;
    this.draw();
  }

  private empty(): void {
    this.steps.clear();
    this.measured.clear();
    this.coming = [];
  }

  private judge(told: Evaluation & Told): void {
    this.measured.add(pointOf({ step: told.step, elapsed: told.elapsed, ...told.metrics }));
    if (!told.sample) return;
    this.coming = [...this.coming.filter(({ step }) => step < told.step), told].slice(-MOST_SAMPLES);
  }

  private draw(): void {
    clearTimeout(this.later);
    this.later = undefined;
    this.evaluations = this.coming;
    this.seconds = this.steps.points[this.steps.points.length - 1]?.seconds ?? 0;
    this.step = this.steps.points[this.steps.points.length - 1]?.step ?? 0;
    this.version++;
  }
}
