// The component's face. A page that holds its own data mounts itself; anything else calls mountLook with a source.

import { mount, unmount } from "svelte";
import AttentionView from "./AttentionView.svelte";
import { EmbeddedSource, type Payload } from "./data/embedded";
import type { AttentionSource } from "./data/types";
import css from "./look.css?inline";

export type { AttentionSource, Kind, Layer, Meta, Numbers, Region, Side, Tile } from "./data/types";
export { EmbeddedSource, type Payload };

const sheets = new WeakSet<Document | ShadowRoot>();

/** Put the component into an element; gives what takes it out again. */
export function mountLook(
  target: Element, source: AttentionSource, options: { address?: boolean; start?: Record<string, unknown> } = {},
): () => void {
  const root = target.getRootNode();
  if ((root instanceof Document || root instanceof ShadowRoot) && !sheets.has(root)) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(css);
    root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
    sheets.add(root);
  }
  const made = mount(AttentionView, { target, props: { source, ...options } });
  return () => {
    void unmount(made);
    source.close();
  };
}

const data = globalThis.document?.getElementById("regard-look-data");
const place = globalThis.document?.getElementById("regard-look");
if (data && place) {
  const payload = JSON.parse(data.textContent ?? "") as Payload;
  data.remove();
  place.textContent = "";
  mountLook(place, new EmbeddedSource(payload), { address: true });
}

/** What a notebook's widget calls: `payload` holds the payload as bytes of JSON. */
function render({ model, el }: { model: { get(name: "payload"): DataView<ArrayBuffer> }; el: HTMLElement }): () => void {
  el.dataset.lmSuppressShortcuts = ""; // JupyterLab leaves the keys to what is inside
  const isLight = document.body.dataset.jpThemeLight; // which JupyterLab says, and nobody else
  const host = document.createElement("div");
  const root = host.attachShadow({ mode: "open" }); // the notebook's styles end here, and ours
  const place = document.createElement("div");
  root.append(place);
  el.append(host);
  const source = new EmbeddedSource(JSON.parse(new TextDecoder().decode(model.get("payload"))) as Payload);
  return mountLook(place, source, { start: isLight ? { theme: isLight === "true" ? "light" : "dark" } : {} });
}

export default { render };
