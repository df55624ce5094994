// One module with the component, its styles and its worker inside: src/regard/look/draw/assets/look.js.
import { defineConfig } from "vite";
import { plugins } from "./vite.shared.ts";

export default defineConfig({
  plugins: plugins(),
  build: {
    lib: { entry: "src/look.ts", formats: ["es"], fileName: () => "look.js" },
    outDir: "../src/regard/look/draw/assets",
    emptyOutDir: true,
    target: "es2022",
    minify: true,
    sourcemap: false,
    reportCompressedSize: false,
  },
  worker: { format: "iife" },
});
