/**
 * The map behind the demo: places, and the round trip a packet would take between them.
 *
 * Only the emulated network knows it: the delays are added to packets and connections, and routing
 * has to measure them like any others. The model is round trip = 4 ms + 1 ms per 75 km of great
 * circle, the one Corrosion's own simulation uses.
 */
import { distanceKm } from "../../routing/core/rtt-table.ts";

/** A city with a region code. */
export interface Place {
  readonly region: string;
  readonly city: string;
  readonly latitude: number;
  readonly longitude: number;
}

/** The demo's places by region code. */
export const PLACES = {
  ams: { region: "ams", city: "Amsterdam", latitude: 52.37, longitude: 4.9 },
  gru: { region: "gru", city: "São Paulo", latitude: -23.55, longitude: -46.63 },
  nrt: { region: "nrt", city: "Tokyo", latitude: 35.68, longitude: 139.69 },
  iad: { region: "iad", city: "Ashburn", latitude: 39.04, longitude: -77.49 },
  fra: { region: "fra", city: "Frankfurt", latitude: 50.11, longitude: 8.68 },
  sin: { region: "sin", city: "Singapore", latitude: 1.35, longitude: 103.82 },
  syd: { region: "syd", city: "Sydney", latitude: -33.87, longitude: 151.21 },
} as const satisfies Record<string, Place>;

/** Round trip between two places in whole milliseconds; 0 for the same place. */
export function roundTripMs(from: Place, to: Place): number {
  return from.region === to.region ? 0 : Math.round(4 + distanceKm(from, to) / 75);
}
