/** The page's build: `index.html` is served at `/s/{stage}`, all else lies beside it under `assets/`. */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The font's and the icons' licences travel with the build, as both ask for. */
function licences(): Plugin {
  const files = ["node_modules/vazirmatn/OFL.txt", "node_modules/lucide-static/LICENSE"];
  return {
    name: "licences",
    apply: "build",
    generateBundle() {
      const source = files.map((file) => `${file.split("/")[1]}\n\n${readFileSync(here(file), "utf8")}`).join("\n\n");
      this.emitFile({ type: "asset", fileName: "assets/licences.txt", source });
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [licences()],
  build: {
    outDir: here("../bridge/web/static"),
    emptyOutDir: true,
    target: ["chrome100", "firefox100", "safari15.4"],
    modulePreload: { polyfill: false },
  },
  server: { host: "127.0.0.1", fs: { allow: [here("."), here("../bridge/text")] } },
  test: { environment: "happy-dom", include: ["test/**/*.test.{ts,tsx}"], testTimeout: 30_000 },
});
