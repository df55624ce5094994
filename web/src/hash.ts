// What is looked at, in the address: short, readable, and believed only as far as it makes sense.

import type { Meta } from "./data/types";

export const VIEWS = ["matrix", "sentence", "lines", "heads", "overview", "numbers"] as const;
export type View = (typeof VIEWS)[number];

export interface Place {
  view: View;
  layer: number;
  head: number;
  row: number;
  column: number;
  words: boolean;
  hideSpecial: boolean;
  hideFirst: boolean;
  renormalise: boolean;
  scale: "linear" | "log";
  kind: "mean" | "max";
}

/** A place in words; null for what is as it always is. */
export type Values = Record<string, string | null>;

export function valuesOf(place: Place, meta: Meta): Values {
  const layer = meta.layers[place.layer];
  return {
    view: place.view,
    layer: layer.name,
    head: String(layer.heads[place.head]),
    row: String(place.row),
    column: String(place.column),
    units: place.words ? "words" : "subwords",
    scale: place.scale,
    cells: place.kind,
    hide: [place.hideSpecial && "special", place.hideFirst && "first"].filter(Boolean).join("+") || null,
    renormalise: place.renormalise ? "1" : null,
  };
}

export function write(place: Place, meta: Meta): string {
  const parts = Object.entries(valuesOf(place, meta)).filter((part): part is [string, string] => part[1] !== null);
  return `#${parts.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&")}`;
}

export function read(from: string | Values, meta: Meta): Partial<Place> {
  const given = new URLSearchParams(typeof from === "string" ? from.replace(/^#/, "") : "");
  if (typeof from !== "string") for (const [name, value] of Object.entries(from)) if (value !== null) given.set(name, value);
  const found: Partial<Place> = {};
  const view = given.get("view") as View;
  if (VIEWS.includes(view)) found.view = view;
  const layer = meta.layers.findIndex((one) => one.name === given.get("layer"));
  if (layer >= 0) found.layer = layer;
  const of = meta.layers[found.layer ?? 0];
  const head = of.heads.indexOf(Number(given.get("head") ?? "-1"));
  if (head >= 0) found.head = head;
  const number = (name: string, count: number): number | undefined => {
    const text = given.get(name);
    return text !== null && /^\d{1,9}$/.test(text) && Number(text) < count ? Number(text) : undefined;
  };
  const row = number("row", of.numRows);
  if (row !== undefined) found.row = row;
  const column = number("column", of.numColumns);
  if (column !== undefined) found.column = column;
  if (given.has("units")) found.words = given.get("units") === "words";
  if (given.has("scale")) found.scale = given.get("scale") === "log" ? "log" : "linear";
  if (given.has("cells")) found.kind = given.get("cells") === "max" ? "max" : "mean";
  if (given.size) {
    const hide = (given.get("hide") ?? "").split(/[+ ]/);
    found.hideSpecial = hide.includes("special");
    found.hideFirst = hide.includes("first");
    found.renormalise = given.get("renormalise") === "1";
  }
  return found;
}
