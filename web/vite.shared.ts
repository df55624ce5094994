// What both builds do alike.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import type { Plugin, PluginOption } from "vite";

/** Put the licences of whatever was taken into a bundle at its head, as they ask for. */
function licences(): Plugin {
  return {
    name: "licences",
    generateBundle(_options, bundle) {
      for (const chunk of Object.values(bundle)) {
        if (chunk.type !== "chunk") continue;
        const folders = new Set<string>();
        for (const id of Object.keys(chunk.modules)) {
          let folder = dirname(id.replace(/^\0/, "").replace(/\?.*$/, ""));
          if (!folder.includes("node_modules")) continue;
          while (!existsSync(join(folder, "package.json")) && folder !== dirname(folder)) folder = dirname(folder);
          folders.add(folder);
        }
        const texts = [...folders].sort().flatMap((folder) => {
          const name = folder.slice(folder.lastIndexOf("node_modules/") + "node_modules/".length);
          const file = readdirSync(folder).find((one) => /^licen[cs]e/i.test(one));
          return file ? [`${name}\n\n${readFileSync(join(folder, file), "utf8").trim()}`] : [name];
        });
        const inside = texts.join("\n\n").replaceAll("*/", "* /");
        if (texts.length) chunk.code = `/*! Contains parts of\n\n${inside}\n*/\n${chunk.code}`;
      }
    },
  };
}

export const plugins = (): PluginOption[] => [svelte({ configFile: false, compilerOptions: { runes: true } }), licences()];
