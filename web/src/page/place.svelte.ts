// Where the reader is: `#/view?name=value&…`. Everything that a link shall bring back stands here.

import { untrack } from "svelte";
import { SvelteMap } from "svelte/reactivity";

export const VIEWS = ["explore", "translate", "generate", "read", "long", "runs", "compare", "lab", "saved"] as const;
export type ViewName = (typeof VIEWS)[number];

/** What is longer is not written into the address. */
export const LONGEST = 2000;
const WRITE_MS = 120;

class Place {
  view = $state<ViewName>("explore");
  private values = new SvelteMap<string, string>();
  private later: ReturnType<typeof setTimeout> | undefined;
  private last = new Map<ViewName, string>();

  constructor() {
    this.read();
    addEventListener("hashchange", () => this.read());
    addEventListener("popstate", () => this.read());
    addEventListener("pagehide", () => this.flush());
  }

  get(name: string): string | null {
    return this.values.get(name) ?? null;
  }

  /** A whole number within bounds; `otherwise` where there is none. */
  number(name: string, otherwise: number, least = 0, most = Number.MAX_SAFE_INTEGER): number {
    const text = this.get(name);
    const value = text === null || text.trim() === "" ? NaN : Number(text);
    return Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : otherwise;
  }

  /** Set some values, null takes one away; with `push` the way back leads to what stood before. */
  set(values: Record<string, string | number | boolean | null>, { push = false }: { push?: boolean } = {}): void {
    untrack(() => {
      if (push) this.flush();
      for (const [name, value] of Object.entries(values)) {
        if (value === null || String(value).length > LONGEST) this.values.delete(name);
        else if (this.values.get(name) !== String(value)) this.values.set(name, String(value));
      }
      if (push) this.flush(true);
      else this.later ??= setTimeout(() => this.flush(), WRITE_MS);
    });
  }

  /** Go to a view with these values and no others. */
  go(view: ViewName, values: Record<string, string> = {}): void {
    location.hash = hashOf(view, Object.entries(values));
  }

  /** Go to a place as it was kept: what stands behind the #. */
  open(kept: string): void {
    location.hash = kept.replace(/^#?/, "#");
  }

  /** The address of a view as it was left; of the view itself where nobody has been yet. */
  href(view: ViewName, values?: Record<string, string>): string {
    if (values) return hashOf(view, Object.entries(values));
    return (view !== this.view && this.last.get(view)) || hashOf(view, []);
  }

  /** What stands behind the # now. */
  get kept(): string {
    return hashOf(this.view, [...this.values]).slice(1);
  }

  private flush(push = false): void {
    clearTimeout(this.later);
    this.later = undefined;
    untrack(() => {
      const wanted = hashOf(this.view, [...this.values]);
      this.last.set(this.view, wanted);
      if (wanted === location.hash) return;
      if (push) history.pushState(null, "", wanted);
      else history.replaceState(null, "", wanted);
    });
  }

  private read(): void {
    untrack(() => {
      clearTimeout(this.later);
      this.later = undefined;
      if (location.hash && !location.hash.startsWith("#/")) return; // a jump within the page
      const [, name, query] = /^#\/([^?]*)\??(.*)$/s.exec(location.hash) ?? ["", "", ""];
      const view = VIEWS.find((one) => one === name) ?? "explore";
      const given = new Map(new URLSearchParams(query));
      if (view !== this.view) {
        this.last.set(this.view, hashOf(this.view, [...this.values]));
        this.values.clear();
        this.view = view;
      }
      for (const key of [...this.values.keys()]) if (!given.has(key)) this.values.delete(key);
      for (const [key, value] of given) if (this.values.get(key) !== value) this.values.set(key, value);
    });
  }
}

function hashOf(view: string, values: [string, string][]): string {
  const query = new URLSearchParams(values).toString();
  return query ? `#/${view}?${query}` : `#/${view}`;
}

export const place = new Place();
