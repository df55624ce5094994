// What every view knows: the models that are here, and how the reader likes the page.

import { get, put, sentence } from "./api";
import type { ModelInfo } from "./types";

export type Language = "en" | "de";
export type Theme = "auto" | "light" | "dark";

const LANGUAGES: Language[] = ["en", "de"];
const THEMES: Theme[] = ["auto", "light", "dark"];
const WRITE_MS = 10_000; // after which a writing that doesn't end holds back the next no more

class House {
  models = $state.raw<ModelInfo[]>([]);
  /** The model that is offered first. */
  first = $state<string | null>(null);
  /** Whether the models are known. */
  isReady = $state(false);
  problem = $state("");
  language = $state<Language>(remembered("language", LANGUAGES) ?? (navigator.language.startsWith("de") ? "de" : "en"));
  theme = $state<Theme>(remembered("theme", THEMES) ?? "auto");
  private systemDark = $state(false);
  /** The writing of settings that goes on; the next one begins after it, so that the last wish is the one kept. */
  private writing: Promise<unknown> | null = null;
  shade: "light" | "dark" = $derived(this.theme === "auto" ? (this.systemDark ? "dark" : "light") : this.theme);

  constructor() {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    this.systemDark = dark.matches;
    dark.addEventListener("change", () => (this.systemDark = dark.matches));
  }

  /** Ask again which models there are. */
  async refresh(): Promise<void> {
    try {
      const known = await get<{ models: ModelInfo[]; default: string | null }>("/api/models");
      this.models = known.models;
      this.first = known.default;
      this.problem = "";
    } catch (error) {
      this.problem = sentence(error);
    }
    this.isReady = true;
  }

  /** Read the settings that the server keeps. */
  async settle(): Promise<void> {
    try {
      const { language, theme } = await get<{ language?: Language; theme?: Theme }>("/api/settings");
      if (this.writing) return; // the reader was faster: what was asked for before is out of date
      if (LANGUAGES.includes(language!)) this.language = language!;
      if (THEMES.includes(theme!)) this.theme = theme!;
    } catch {
      // as the browser says, then
    }
  }

  prefer(wish: { language?: Language; theme?: Theme }): void {
    Object.assign(this, wish);
    for (const [name, value] of Object.entries(wish)) {
      try {
        localStorage.setItem(`regard.${name}`, value);
      } catch {
        // a browser that keeps nothing
      }
    }
    // The wish alone: another tab may have changed the rest.
    const write = (): Promise<unknown> => put("/api/settings", wish, AbortSignal.timeout(WRITE_MS)).catch(() => {});
    this.writing = this.writing ? this.writing.then(write) : write();
  }

  model(name: string | null): ModelInfo | undefined {
    return this.models.find((one) => one.name === name);
  }

  /** The models that know a verb. */
  fitting(verb: string): ModelInfo[] {
    return this.models.filter((one) => one.verbs.includes(verb));
  }

  /** The model that is named, or else the one to begin with. */
  pick(name: string | null, verb: string): ModelInfo | undefined {
    const fitting = this.fitting(verb);
    return fitting.find((one) => one.name === name) ?? fitting.find((one) => one.name === this.first) ?? fitting[0];
  }
}

function remembered<T extends string>(name: string, allowed: T[]): T | null {
  try {
    return allowed.find((one) => one === localStorage.getItem(`regard.${name}`)) ?? null;
  } catch {
    return null;
  }
}

export const house = new House();
