/** Certificates for tests: an authority made once per run, leaves issued and written on demand. */
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  createCertificateAuthority,
  issueServerCertificate,
  type CertificatePems,
} from "../../replica/driver/certificates/certificates.ts";
import type { CertificateFiles } from "../listeners/tls-certificates.ts";

/** A folder of certificates of one authority. */
export class TestCertificates {
  readonly folder: string = mkdtempSync(join(tmpdir(), "patina-tls-"));
  readonly #authority: CertificatePems;

  static async create(): Promise<TestCertificates> {
    return new TestCertificates(await createCertificateAuthority({ nowMs: Date.now() }));
  }

  constructor(authority: CertificatePems) {
    this.#authority = authority;
  }

  /** What clients trust. */
  get authority(): string {
    return this.#authority.certificatePem;
  }

  async issue(names: readonly string[], validityDays = 90): Promise<CertificatePems> {
    return issueServerCertificate(this.#authority, {
      nowMs: Date.now(),
      addresses: [],
      names,
      validityDays,
    });
  }

  /** Issues one and writes it as `<name>.pem` and `<name>.key`. */
  async write(
    name: string,
    names: readonly string[],
    validityDays = 90,
  ): Promise<CertificateFiles> {
    const pems = await this.issue(names, validityDays);
    const files = this.files(name);
    this.replace(files.cert_file, pems.certificatePem);
    this.replace(files.key_file, pems.keyPem);
    return files;
  }

  files(name: string): CertificateFiles {
    return {
      cert_file: join(this.folder, `${name}.pem`),
      key_file: join(this.folder, `${name}.key`),
    };
  }

  /** As renewal tools do it: a new file in the place of the old one. */
  replace(file: string, text: string): void {
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
