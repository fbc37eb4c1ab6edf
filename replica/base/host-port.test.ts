import { expect, test } from "vitest";
import { isLoopbackHost, joinHostPort, splitHostPort } from "./host-port.ts";

test.each(["localhost", "::1", "127.0.0.1", "127.255.255.254"])("%s is loopback", (host) => {
  expect(isLoopbackHost(host)).toBe(true);
});

test.each(["127.example", "127.0.0.1.example", "0.0.0.0", "::", "10.0.0.1", "localhost.example"])(
  "%s may be reached from elsewhere",
  (host) => {
    expect(isLoopbackHost(host)).toBe(false);
  },
);

test.each([
  ["192.0.2.1:80", "192.0.2.1", 80],
  ["[2001:db8::1]:8787", "2001:db8::1", 8787],
  ["name.example:0", "name.example", 0],
])("%s is split and put together again", (text, host, port) => {
  expect(splitHostPort(text)).toEqual({ host, port });
  expect(joinHostPort(host, port)).toBe(text);
});
