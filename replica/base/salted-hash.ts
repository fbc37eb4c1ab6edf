/**
 * HalfSipHash-2-4 with 64 bits (Aumasson and Bernstein, 2012; the variant of 32-bit words): a hash
 * whose collisions nobody can look for who does not know the salt. For tables whose keys others
 * choose.
 *
 * Texts are hashed as UTF-16, little-endian: two code units make one word.
 */

/** Two words of 32 random bits. */
export type Salt = readonly [number, number];

/** A hash with its salt. The answer stands in the object, so that none is made per text. */
export class SaltedHash {
  /** The halves of the last answer, as signed words. */
  low = 0;
  high = 0;
  readonly #salt: Salt;
  #v0 = 0;
  #v1 = 0;
  #v2 = 0;
  #v3 = 0;

  constructor(salt: Salt) {
    this.#salt = salt;
  }

  /** Hashes a text into `low` and `high`. */
  take(text: string): void {
    const [k0, k1] = this.#salt;
    this.#v0 = k0 | 0;
    this.#v1 = k1 ^ 0xee;
    this.#v2 = 0x6c796765 ^ k0;
    this.#v3 = 0x74656462 ^ k1;
    const { length } = text;
    const pairs = length & ~1;
    for (let index = 0; index < pairs; index += 2) {
      this.#mix(text.charCodeAt(index) | (text.charCodeAt(index + 1) << 16));
    }
    this.#mix((length << 25) | (pairs < length ? text.charCodeAt(pairs) : 0));
    this.#v2 ^= 0xee;
    this.#turn(4);
    this.low = this.#v1 ^ this.#v3;
    this.#v1 ^= 0xdd;
    this.#turn(4);
    this.high = this.#v1 ^ this.#v3;
  }

  #mix(word: number): void {
    this.#v3 ^= word;
    this.#turn(2);
    this.#v0 ^= word;
  }

  #turn(rounds: number): void {
    let v0 = this.#v0;
    let v1 = this.#v1;
    let v2 = this.#v2;
    let v3 = this.#v3;
    for (let round = 0; round < rounds; round += 1) {
      v0 = (v0 + v1) | 0;
      v1 = ((v1 << 5) | (v1 >>> 27)) ^ v0;
      v0 = (v0 << 16) | (v0 >>> 16);
      v2 = (v2 + v3) | 0;
      v3 = ((v3 << 8) | (v3 >>> 24)) ^ v2;
      v0 = (v0 + v3) | 0;
      v3 = ((v3 << 7) | (v3 >>> 25)) ^ v0;
      v2 = (v2 + v1) | 0;
      v1 = ((v1 << 13) | (v1 >>> 19)) ^ v2;
      v2 = (v2 << 16) | (v2 >>> 16);
    }
    this.#v0 = v0;
    this.#v1 = v1;
    this.#v2 = v2;
    this.#v3 = v3;
  }
}
