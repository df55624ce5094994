// What is typed or chosen, kept in the address: a value that follows the address and is written into it.

import { untrack } from "svelte";
import { LONGEST, place, type ViewName } from "../../place.svelte";

/** Made while a component begins, and written only while its view is open. What is longer than the address takes is kept by the page alone. */
export class Kept {
  private held = $state("");

  constructor(private readonly view: ViewName, private readonly name: string, private readonly otherwise: string) {
    this.held = place.get(name) ?? otherwise;
    $effect(() => {
      if (place.view !== view) return;
      const given = place.get(name);
      untrack(() => {
        const next = given ?? (this.held.length > LONGEST ? this.held : otherwise);
        if (next !== this.held) this.held = next;
      });
    });
  }

  get value(): string {
    return this.held;
  }

  set value(value: string) {
    this.held = value;
    if (place.view === this.view) place.set({ [this.name]: value === this.otherwise ? null : value });
  }

  /** As a number within bounds; what is no number is the one to begin with. */
  number(least: number, most: number): number {
    const value = this.held.trim() === "" ? NaN : Number(this.held);
    return Number.isFinite(value) ? Math.min(most, Math.max(least, value)) : Number(this.otherwise);
  }
}
