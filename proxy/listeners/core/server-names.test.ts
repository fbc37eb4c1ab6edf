import { expect, test } from "vitest";
import { dnsNamesOf, ServerNames } from "./server-names.ts";

const names = new ServerNames([
  { names: ["shop.example", "*.shop.example"], value: "shop" },
  { names: ["*.example", "shop.example"], value: "all" },
  { names: ["Deep.Shop.Example"], value: "deep" },
]);

test.each([
  ["shop.example", "shop"],
  ["SHOP.example.", "shop"],
  ["a.shop.example", "shop"],
  ["deep.shop.example", "deep"],
  ["a.b.shop.example", null],
  ["other.example", "all"],
  ["example", null],
  [".example", null],
  ["*.example", "all"],
  ["", null],
])("the certificate for %s is %s", (name, expected) => {
  expect(names.find(name)).toBe(expected);
});

test("names come from the DNS entries alone", () => {
  expect(dnsNamesOf("DNS:a.example, IP Address:192.0.2.1, DNS:*.b.example, URI:x:y")).toEqual([
    "a.example",
    "*.b.example",
  ]);
});
