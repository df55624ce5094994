import { post } from "./api";

const WAIT = 3000;
let last = "";

/** Put down that something was looked at, unless the reader goes on within seconds; gives what calls it off. */
export function remember(kind: string, title: string, place: () => string): () => void {
  const later = setTimeout(() => {
    const told = { kind, title: title.trim().replace(/\s+/g, " ").slice(0, 160), place: place() };
    const name = `${kind} ${told.title}`;
    if (!told.title || name === last) return;
    last = name;
    post("/api/history", told).catch(() => {}); // a history with a gap does no harm
  }, WAIT);
  return () => clearTimeout(later);
}
