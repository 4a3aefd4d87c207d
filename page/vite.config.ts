/** The page's build: `index.html` is served at `/s/{stage}`, all else lies beside it under `assets/`. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url));

/** The licences of the font, the icons and what speaks to Matrix clients travel with the build, as they ask for. */
function licences(): Plugin {
  const files = ["vazirmatn/OFL.txt", "lucide-static/LICENSE", "matrix-widget-api/LICENSE", "events/LICENSE"];
  const own = createRequire(import.meta.url);
  const text = (file: string): string => {
    const [name, path] = file.split("/") as [string, string];
    return readFileSync(join(dirname(own.resolve(`${name}/package.json`)), path), "utf8");
  };
  return {
    name: "licences",
    apply: "build",
    generateBundle() {
      const source = files.map((file) => `${file.split("/")[0]}\n\n${text(file)}`).join("\n\n");
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
