/**
 * Documents of the API's objects as JSON: read with every error in one go, printed as read.
 *
 * A machine is always given whole. A field that is not known is left out and named in a warning, so
 * that a newer publisher can talk to an older replica; a value that does not fit refuses the whole
 * document, and nothing of it is written.
 */
import { isIP } from "node:net";
import { z } from "zod";
import { failure, success, type Result } from "#base/machine.ts";
import type { DocumentByKind, ObjectKind, StoredObject } from "../store/objects.ts";

/** A document that fits, and the fields of it that were left out. */
export interface ReadDocument<Kind extends ObjectKind> {
  readonly document: DocumentByKind[Kind];
  readonly warnings: readonly string[];
}

/** Reads the body of `PUT /v1/{kind}/{id}`. The error lists every place that does not fit. */
export function readDocument<Kind extends ObjectKind>(
  kind: Kind,
  id: string,
  body: unknown,
): Result<ReadDocument<Kind>, readonly string[]> {
  const badId = idProblem(kind, id);
  if (badId !== null) return failure([badId]);
  const schema = SCHEMAS[kind];
  const parsed = schema.safeParse(body, { reportInput: true });
  if (!parsed.success) return failure(parsed.error.issues.map(describeIssue));
  const warnings = unknownFields(schema, body, "");
  const document = TO_DOCUMENT[kind](id, parsed.data as never) as DocumentByKind[Kind];
  return success({ document, warnings });
}

/** A stored object as the API shows it: what was put, with its owner and time of last change. */
export function printObject(kind: ObjectKind, stored: StoredObject): unknown {
  return TO_JSON[kind](stored as never);
}

/** Requests in flight; far above what one machine takes. */
const LIMIT_MAX = 1_000_000_000;
const text = z.string().max(1024, "at most 1024 characters");
const id = z
  .string()
  .regex(/^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$/, "1 to 128 letters, digits, . _ : -");
const limit = z
  .unknown()
  .refine(isWholeUpTo(LIMIT_MAX), `a whole number from 0 to ${LIMIT_MAX}`)
  .transform(Number);
const degrees = (bound: number): z.ZodType<number | null> =>
  z
    .unknown()
    .refine(isNumberUpTo(bound), `null, or degrees from -${bound} to ${bound}`)
    .transform((value) => (value === null ? null : Number(value)))
    .default(null);
const dialable = z
  .string()
  .refine(isDialable, "an IP address and a port, as in 192.0.2.1:80 or [2001:db8::1]:80");

const SCHEMAS = {
  nodes: z.object({
    actor: z.uuid().default("00000000-0000-0000-0000-000000000000"),
    region: text.default(""),
    kind: z.enum(["worker", "edge"]).default("worker"),
    latitude: degrees(90),
    longitude: degrees(180),
    address: text.default(""),
  }),
  apps: z.object({ name: text.default("") }),
  hostnames: z.object({ app: id }),
  machines: z.object({
    app: id,
    region: text.default(""),
    state: z.string().regex(/^[a-z_]{1,32}$/, "a state in lower case, such as started or stopped"),
    services: z
      .array(
        z.object({
          name: id,
          address: dialable,
          protocol: z
            .string()
            .regex(/^[a-z0-9]{1,16}$/, "a protocol, such as http")
            .default("http"),
          soft_limit: limit.default(0),
          hard_limit: limit.default(0),
        }),
      )
      .max(100, "at most 100 services")
      .refine(hasUnique("name"), "services with different names")
      .default([]),
    checks: z
      .array(
        z.object({
          service: z.union([id, z.literal("")]).default(""),
          name: id,
          status: z.enum(["passing", "warning", "critical"]),
        }),
      )
      .max(1000, "at most 1000 checks")
      .refine(hasUnique("service", "name"), "checks with different names")
      .default([]),
  }),
} as const;

type Body<Kind extends ObjectKind> = z.infer<(typeof SCHEMAS)[Kind]>;

const TO_DOCUMENT: {
  readonly [Kind in ObjectKind]: (id: string, body: Body<Kind>) => DocumentByKind[Kind];
} = {
  nodes: (one, body) => ({
    id: one,
    actorId: body.actor,
    region: body.region,
    kind: body.kind,
    latitude: body.latitude,
    longitude: body.longitude,
    address: body.address,
  }),
  apps: (one, body) => ({ id: one, name: body.name }),
  hostnames: (one, body) => ({ id: one.toLowerCase(), appId: body.app }),
  machines: (one, body) => ({
    id: one,
    appId: body.app,
    region: body.region,
    state: body.state,
    services: body.services.map((service) => ({
      name: service.name,
      address: service.address,
      protocol: service.protocol,
      softLimit: service.soft_limit,
      hardLimit: service.hard_limit,
    })),
    checks: body.checks,
  }),
};

const TO_JSON: { readonly [Kind in ObjectKind]: (stored: StoredObject<Kind>) => unknown } = {
  nodes: (node) => ({
    id: node.id,
    actor: node.actorId,
    region: node.region,
    kind: node.kind,
    latitude: node.latitude,
    longitude: node.longitude,
    address: node.address,
    updated_at: node.updatedAtMs,
  }),
  apps: (app) => ({ id: app.id, name: app.name, node: app.nodeId, updated_at: app.updatedAtMs }),
  hostnames: (one) => ({
    id: one.id,
    app: one.appId,
    node: one.nodeId,
    updated_at: one.updatedAtMs,
  }),
  machines: (machine) => ({
    id: machine.id,
    app: machine.appId,
    node: machine.nodeId,
    region: machine.region,
    state: machine.state,
    services: machine.services.map((service) => ({
      name: service.name,
      address: service.address,
      protocol: service.protocol,
      soft_limit: service.softLimit,
      hard_limit: service.hardLimit,
    })),
    checks: machine.checks,
    updated_at: machine.updatedAtMs,
  }),
};

function idProblem(kind: ObjectKind, value: string): string | null {
  if (kind === "hostnames") {
    const isHostname = /^(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$/.test(value);
    return isHostname
      ? null
      : `id: found ${JSON.stringify(value)}; allowed: a host name, or *.name`;
  }
  return id.safeParse(value).success
    ? null
    : `id: found ${JSON.stringify(value)}; allowed: 1 to 128 letters, digits, . _ : -`;
}

function isDialable(address: string): boolean {
  const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d{1,5})$/.exec(address);
  const port = Number(match?.[3]);
  if (!match || !(port >= 1 && port <= 65_535)) return false;
  return match[1] === undefined ? isIP(match[2] ?? "") === 4 : isIP(match[1]) === 6;
}

/** Integers of a body come as `bigint`, others as `number`. */
function isWholeUpTo(max: number): (value: unknown) => boolean {
  return (value) => {
    const isWhole = typeof value === "bigint" || Number.isSafeInteger(value);
    return isWhole && Number(value) >= 0 && Number(value) <= max;
  };
}

function isNumberUpTo(bound: number): (value: unknown) => boolean {
  return (value) => {
    if (value === null) return true;
    const isNumber = typeof value === "bigint" || typeof value === "number";
    return isNumber && Math.abs(Number(value)) <= bound;
  };
}

function hasUnique<Key extends string>(...keys: Key[]) {
  return (items: readonly Readonly<Record<Key, string>>[]): boolean =>
    new Set(items.map((item) => keys.map((key) => item[key]).join("/"))).size === items.length;
}

function describeIssue(issue: z.core.$ZodIssue): string {
  const place = issue.path.join(".") || "the body";
  const found = issue.input === undefined ? "nothing" : printShort(issue.input);
  const allowed =
    issue.code === "invalid_type"
      ? `a value of type ${issue.expected}`
      : issue.code === "invalid_value"
        ? issue.values.map((value) => JSON.stringify(value)).join(", ")
        : issue.message;
  return `${place}: found ${found}; allowed: ${allowed}`;
}

function printShort(value: unknown): string {
  const printed = JSON.stringify(value, (_key, one: unknown) =>
    typeof one === "bigint" ? Number(one) : one,
  );
  return printed.length > 80 ? `${printed.slice(0, 80)}...` : printed;
}

/** Fields that the schema does not have, as warnings with their place. */
function unknownFields(schema: z.ZodType, value: unknown, place: string): string[] {
  const inner = unwrapped(schema);
  if (inner instanceof z.ZodArray && Array.isArray(value)) {
    const element = inner.element as z.ZodType;
    return value.flatMap((one, index) => unknownFields(element, one, `${place}${index}.`));
  }
  if (!(inner instanceof z.ZodObject) || typeof value !== "object" || value === null) return [];
  const shape = inner.shape as Record<string, z.ZodType>;
  return Object.entries(value).flatMap(([key, one]) => {
    const field = Object.hasOwn(shape, key) ? shape[key] : undefined;
    return field === undefined
      ? [`${place}${key}: unknown field, left out`]
      : unknownFields(field, one, `${place}${key}.`);
  });
}

function unwrapped(schema: z.ZodType): z.ZodType {
  return schema instanceof z.ZodDefault ? unwrapped(schema.unwrap() as z.ZodType) : schema;
}
