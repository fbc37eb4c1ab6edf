import { defineConfig } from "vitest/config";

/**
 * Three kinds of files by suffix: `.test.ts` (pure, milliseconds), `.sim.test.ts` (virtual time),
 * `.e2e.test.ts` (sockets, files, processes). Two workers, because the product is tested on two cores.
 */
export default defineConfig({
  test: {
    include: ["{bin,proxy,replica,watchdog,routing,tests,bench}/**/*.test.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 180_000,
    hookTimeout: 180_000,
    reporters: ["default"],
  },
});
