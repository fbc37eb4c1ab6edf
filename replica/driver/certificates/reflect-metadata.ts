/**
 * The three reflection calls that `@peculiar/x509` demands at load.
 *
 * Its dependency container looks for a metadata polyfill and throws without one, though no class of
 * the package takes injected constructor arguments: an empty answer to each question is enough. An
 * existing polyfill is left alone.
 */

interface MetadataReflection {
  getMetadata?: (key: unknown, target: object) => unknown;
  getOwnMetadata?: (key: unknown, target: object) => unknown;
  defineMetadata?: (key: unknown, value: unknown, target: object) => void;
}

/** Makes `Reflect` answer metadata questions with "none". Call before loading `@peculiar/x509`. */
export function provideReflectMetadata(): void {
  const reflection = Reflect as MetadataReflection;
  reflection.getMetadata ??= () => undefined;
  reflection.getOwnMetadata ??= () => undefined;
  reflection.defineMetadata ??= () => {};
}
