/** Entry of a store's thread that nobody watches. */
import { serveStore } from "./store-worker.ts";

serveStore();
