import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { defineConfig, type Plugin } from "vite";

const FOLDER = import.meta.dirname;
const SOURCES = ["index.html", "package.json", "package-lock.json", "tsconfig.json", "vite.config.ts"];

/** The hash that tests/glm_core/serve/test_page.py compares with the sources as they are now. */
function sourceHash(): string {
  const names = [...SOURCES];
  for (const folder of ["public", "src"]) {
    for (const entry of readdirSync(join(FOLDER, folder), { recursive: true, withFileTypes: true })) {
      if (entry.isFile()) {
        names.push(join(entry.parentPath, entry.name).slice(FOLDER.length + 1).replaceAll("\\", "/"));
      }
    }
  }
  const digest = createHash("sha256");
  for (const name of names.sort()) {
    digest.update(`${name}\0`).update(readFileSync(join(FOLDER, name)));
  }
  return digest.digest("hex");
}

function writeSourceHash(): Plugin {
  return {
    name: "source-hash",
    apply: "build",
    generateBundle() {
      this.emitFile({ type: "asset", fileName: "source.sha256", source: `${sourceHash()}\n` });
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [writeSourceHash()],
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../src/glm_core/serve/page",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0,
    cssCodeSplit: false,
    license: { fileName: "LICENSES.md" },
    rolldownOptions: {
      output: {
        entryFileNames: "assets/page.js",
        chunkFileNames: "assets/[name].js",
        assetFileNames: "assets/page[extname]",
      },
    },
  },
  server: { proxy: Object.fromEntries(["/v1", "/workbench", "/health"].map((path) => [path, "http://127.0.0.1:8000"])) },
});
