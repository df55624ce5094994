// The page of `regard serve`, in parts that are fetched when they are needed: src/regard/serve/page/.
import { defineConfig } from "vite";
import { plugins } from "./vite.shared.ts";

export default defineConfig({
  root: "src/page",
  base: "/",
  plugins: plugins(),
  build: {
    outDir: "../../../src/regard/serve/page",
    emptyOutDir: true,
    target: "es2022",
    minify: true,
    sourcemap: false,
    reportCompressedSize: false,
    modulePreload: { polyfill: false },
  },
  worker: { format: "iife" },
});
