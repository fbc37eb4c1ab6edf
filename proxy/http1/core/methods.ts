/**
 * Request methods as small numbers, with what matters to a proxy: safe repetition (RFC 9110 section
 * 9.2.2) and whether the response has a body.
 */

/** Number of a method; `other` may be any extension method, which is passed on. */
export const METHOD = {
  other: 0,
  get: 1,
  head: 2,
  post: 3,
  put: 4,
  delete: 5,
  options: 6,
  patch: 7,
  connect: 8,
  trace: 9,
} as const;

/** Text by number; `""` for `METHOD.other`. */
export const METHOD_TEXTS: readonly string[] = [
  "",
  "GET",
  "HEAD",
  "POST",
  "PUT",
  "DELETE",
  "OPTIONS",
  "PATCH",
  "CONNECT",
  "TRACE",
];

/** The number of the method in a range. Methods are case-sensitive. */
export function methodOf(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start;
  for (let method = 1; method < METHOD_TEXTS.length; method += 1) {
    const text = METHOD_TEXTS[method] as string;
    if (text.length === length && isText(bytes, start, text)) return method;
  }
  return METHOD.other;
}

/** Whether repeating the request does no more than sending it once. Unknown methods: no. */
export function isIdempotent(method: number): boolean {
  return (
    method === METHOD.get ||
    method === METHOD.head ||
    method === METHOD.put ||
    method === METHOD.delete ||
    method === METHOD.options
  );
}

function isText(bytes: Uint8Array, start: number, text: string): boolean {
  for (let index = 0; index < text.length; index += 1) {
    if (bytes[start + index] !== text.charCodeAt(index)) return false;
  }
  return true;
}
