/** Error codes of the certificates folder. */

/**
 * A certificate, key or name given for issuing cannot be used; `details.found` says which. Nothing
 * was issued. Not retryable with the same input. Never reaches an HTTP client.
 */
export const CERTIFICATE_INPUT = "CERTIFICATE_INPUT";

/**
 * A certificate, key or authority file cannot be read. Nothing was started. Not retryable until the
 * file is there and readable. Never reaches an HTTP client.
 */
export const CERTIFICATE_UNREADABLE = "CERTIFICATE_UNREADABLE";
