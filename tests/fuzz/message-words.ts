/**
 * The words of the message grammar: for each place what usually stands there, and what has made
 * recipients of HTTP disagree. `N` in a chunk size stands for the right one.
 */

/** Fixed parts. */
export const NOTHING = [""];
export const SPACE = [" "];
export const VERSION = ["HTTP/1.1"];

/** The first line. */
export const METHODS = ["GET", "GET", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"];
export const ODD_METHODS = [
  ..."get QUERY PROPFIND CONNECT TRACE PRI PURGE G M-SEARCH SOURCE foo GE:T".split(" "),
  "",
  "GET\0",
  "X".repeat(40),
];
export const TARGETS = ["/", "/a", "/a/b?c=d", "/%20x", "/?", "/a;b=c", "/~x/y.z", "/a=b&c"];
export const ODD_TARGETS = [
  "*",
  "//x",
  "/a|b",
  '/a{b}"<>^`\\',
  "/a#b",
  "/ a",
  "a",
  "",
  "?x",
  "/\x80",
  "/\xff\xc0",
  "/a\tb",
  "/\x7f",
  "http://h/x",
  "http://h",
  "http://h:80/x?y",
  "HTTPS://h/",
  "http://h?x",
  "http://u@h/",
  "http:///x",
  "http://[::1]:8/",
  "ftp://h/",
  "h:443",
  `/${"t".repeat(300)}`,
];
export const ODD_VERSIONS = [
  ..."HTTP/1.0 HTTP/1.0 HTTP/1.0 HTTP/1.2 HTTP/2.0 HTTP/0.9 http/1.1 HTTP/1.10 HTTP/11 ICY".split(
    " ",
  ),
  "HTTP/1.1 ",
  "HTTP/1.",
  "HTTP/ 1.1",
  "",
];
export const BEFORE = ["\r\n", "\r\n\r\n", "\n", "\r", " ", "\t", "\0", "\r\n\n"];
export const GAPS = ["  ", "\t", "", "\x0b", "\xa0", " \t"];

/** Header lines. */
export const HOSTS = ["a", "example.com", "example.com:8080", "127.0.0.1", "[::1]:80", "A.b-c_d"];
export const ODD_HOSTS = ["", "a b", "a,b", "a/b", "u@h", "h:", "h:x", "[::1", "h:999999", "a\tb"];
export const REQUEST_LINES = [
  "Connection: close",
  "Connection: keep-alive",
  "Connection: upgrade",
  "Connection: X-A, close",
  "Connection: content-length, transfer-encoding",
  "Upgrade: websocket",
  "Upgrade: h2c",
  "Expect: 100-continue",
  "TE: trailers",
  "TE: trailers, deflate;q=0.5",
  "Trailer: X-T",
  "Via: 1.1 other",
  "X-Forwarded-For: 192.0.2.9",
  "X-Forwarded-Host: evil",
  "X-Request-Id: 1",
  "Forwarded: for=192.0.2.9",
  "Keep-Alive: timeout=5",
  "Proxy-Connection: keep-alive",
  "Cookie: a=b; c=d",
  "Accept: */*",
  "X-A: b",
  "X-A:b",
  "X-A: b\t ",
  "X-A:",
  "a!#$%&'*+-.^_`|~: x",
  "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  `X-Long: ${"v".repeat(500)}`,
];
export const RESPONSE_LINES = [
  "Connection: close",
  "Connection: keep-alive",
  "Connection: X-A",
  "Connection: upgrade",
  "Upgrade: websocket",
  "Set-Cookie: a=b",
  "Set-Cookie: c=d",
  "Content-Type: text/plain",
  "Trailer: X-T",
  "Via: 1.1 other",
  "X-Request-Id: 1",
  "Keep-Alive: timeout=5",
  "Date: Sat, 28 Nov 2026 00:00:00 GMT",
  "X-A: b",
  "X-A:",
  "Proxy-Authenticate: Basic",
  `X-Long: ${"v".repeat(500)}`,
];
export const ODD_NAMES = [
  ..."Content-Length Transfer-Encoding Connection Upgrade Expect TE Via Host X-A".split(" "),
  ..."content_length Content-Length\0 Transfer\u00adEncoding Proxy-Authorization".split(" "),
  "X A",
  "X(A)",
  "",
  "\x80",
  "X-A\t",
  " X-A",
];
export const ODD_VALUES = [
  ..."5 0 chunked close keep-alive upgrade h2c websocket 100-continue trailers host a \xe9".split(
    " ",
  ),
  "close, content-length",
  "keep-alive, close",
  "200-ok",
  "a\rb",
  "a\nb",
  "a\0b",
  "\x7f",
  "\x01",
  "\t",
  "a\r\n b",
  "a\r\n\tb",
  ",,",
  ",".repeat(80),
  "a,".repeat(70),
];
export const COLONS = [": ", ": ", ": ", ":", ":\t", " : ", ":  ", "", ": \x0b", ":\xa0", ":\0"];

/** What says where a body ends. */
export const LENGTH_NAMES = ["Content-Length", "content-length", "CONTENT-LENGTH"];
export const CODING_NAMES = ["Transfer-Encoding", "transfer-encoding", "TRANSFER-ENCODING"];
export const ODD_LENGTH_NAMES = [
  ...LENGTH_NAMES,
  ...LENGTH_NAMES,
  "Content-Length ",
  "Content_Length",
  "Content-Length\x0b",
  "X\r\nContent-Length",
];
export const ODD_CODING_NAMES = [
  ...CODING_NAMES,
  ...CODING_NAMES,
  "Transfer-Encoding ",
  "Transfer_Encoding",
  "\tTransfer-Encoding",
  "X\nTransfer-Encoding",
];
export const ODD_LENGTHS = [
  ..."0 3 3 5 05 +3 -3 0x3 3,3 3,5 3.0 1e1 3; 3_0 9007199254740993 18446744073709551619 4294967299".split(
    " ",
  ),
  "3, 3",
  "3 ",
  "\t3",
  "3 3",
  "",
  "3\x0b",
  "\x003",
  "\xb2",
  "99999",
];
export const ODD_CODINGS = [
  ..."chunked chunked Chunked CHUNKED gzip identity chunked,chunked chunke xchunked chunked;q=1".split(
    " ",
  ),
  "chunked, gzip",
  "gzip, chunked",
  "identity, chunked",
  "chunked,",
  ",chunked",
  "chunked ",
  "\tchunked",
  '"chunked"',
  "chunked\x0b",
  "\x0bchunked",
  "chunked\r\n x",
  "chun\r\n ked",
  "",
];

/** Bodies; some are requests that must never be read as such. */
export const BODIES = [
  "",
  "a",
  "abc",
  "hello",
  "0\r\n\r\n",
  "\r\n",
  "GET /smuggled HTTP/1.1\r\nHost: evil\r\n\r\n",
  "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
  "x".repeat(300),
  "\0\x80\xff",
];
export const ODD_SIZES = [
  ..."0N 00000000N NN N0 0xN -N +N N;  N\t N\x0b N, 1000000000000000N 7fffffffffffffffN".split(" "),
  "N ",
  " N",
  "",
  "g",
  "0",
  "ffffffffffffffff",
  "\r\nN",
];
export const EXTENSIONS = [";a", ";a=b", ';a="b c"', ";a;b=c", ';a="b\\"c"'];
export const ODD_EXTENSIONS = [
  ..."; ;; ;\xff ;=a ;a= ;\x0b ;a\0 ;a,b ;TERM;0".split(" "),
  "; a",
  ";a = b",
  ';a="\t',
  ";\ra",
  ";\na",
  " ;a",
];
export const LAST_SIZES = ["0", "0", "0", "00", "0000000000"];
export const ODD_LAST_SIZES = ["", "0 ", " 0", "0x0", "-0", "0;a", "0\t", "0".repeat(20), "1"];
export const TRAILERS = ["X-T: v", "X-Checksum: 1", "x:"];
export const ODD_TRAILERS = [
  "Content-Length: 5",
  "Transfer-Encoding: chunked",
  "Host: evil",
  "Connection: close",
  "X-T : v",
  "X-T",
  " x",
  ": v",
  "X-T: a\0b",
  "X-T: a\rb",
  "X-T: a\r\n b",
  "GET /smuggled HTTP/1.1",
];

/** Responses. */
export const RESPONSE_METHODS = ["GET", "GET", "GET", "POST", "HEAD", "PUT"];
export const INTERIM_STATUSES = ["100", "103", "103", "102"];
export const STATUSES = ["200", "200", "200", "404", "204", "304", "206", "500"];
export const ODD_STATUSES = [
  ..."101 101 101 100 103 199 205 099 600 999 000 20 2000 -20 2x0 0200".split(" "),
  "",
];
export const REASONS = [" OK", " OK", " ", "", " Not Found", " \xe9"];
export const ODD_REASONS = ["  OK", "\tOK", " O\0K", " O\rK", " O\nK", " \x7f", " \x01", "OK", ":"];

/** Between lines, and anywhere. */
export const LINE_ENDS = [
  "\n",
  "\r",
  "\r\r\n",
  "\n\r",
  "\r\n\r\n",
  "\r\n ",
  "\r\n\t",
  "",
  "\0\r\n",
];
export const BYTES = Array.from(
  '\r\n\t \0\x0b\x0c:;,="\\/?#%-+_0159afAFxXgG\x01\x1f\x7f\x80\x85\xa0\xad\xc2\xff',
);
