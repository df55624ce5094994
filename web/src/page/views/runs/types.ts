// What the server says of a run, as far as this view reads it.

export interface RunSummary {
  name: string;
  task: string | null;
  state: "running" | "stopped" | "finished" | "preparing" | "failed";
  step: number;
  steps: number | null;
  minutes: number | null;
  best: Record<string, unknown>;
  /** The one of `best` that decides. */
  metric: string | null;
  seconds: number | null;
  checkpoints: number[];
  resumable: boolean;
  /** Why it failed. */
  problem: string | null;
  /** Whether it was started from the page and goes on. */
  stoppable: boolean;
  /** Whether it was asked to stop, and has not yet. */
  stopping: boolean;
}

/** A line of the history, or a saved view. */
export interface Entry {
  id: number;
  /** Seconds since 1970. */
  when: number;
  kind?: string;
  title: string;
  /** What stands behind the # of the address. */
  place: string;
}
