import { RuntimeError } from '../../kit/errors.js';
import type { InnerStep, LaunchPlan, OuterStep } from './plan.js';
import { DataWriter, RecordReader, RecordWriter, recordBytes, type Codec } from './wire-codec.js';
import { innerTable, outerTable } from './wire-table.js';

/** The wire format of launch plans, described in `src/native/shim/PLAN.md`: a header, one record a step, data. */
export const planVersion = 1;
export const maxSteps = 4096;

const magic = 0x4e4c5042;
const headerBytes = 32;
const planKinds = ['sandbox', 'container', 'join'] as const;

type AnyStep = OuterStep | InnerStep;
type Entry = { readonly code: number; readonly fields: Readonly<Record<string, Codec<unknown>>> };

/** The tables are checked field by field where they are written; here every step is only a bag of fields. */
const entryOf = (op: AnyStep['op']): Entry => ({ ...outerTable, ...innerTable })[op] as unknown as Entry;
const entries: ReadonlyMap<AnyStep['op'], Entry> = new Map(
  [...Object.keys(outerTable), ...Object.keys(innerTable)].map((op) => [
    op as AnyStep['op'],
    entryOf(op as AnyStep['op']),
  ]),
);
const opsByCode = new Map([...entries].map(([op, entry]) => [entry.code, op]));

/** Throws `invalid-argument` for a string with a zero byte and for more than 4096 steps. */
export function encodePlan(plan: LaunchPlan): Uint8Array {
  const steps: readonly AnyStep[] = [...plan.outer, ...plan.inner];
  if (steps.length > maxSteps) {
    throw new RuntimeError('invalid-argument', `launch plan: ${steps.length} steps, at most ${maxSteps} are possible`);
  }
  const records = new DataView(new ArrayBuffer(headerBytes + steps.length * recordBytes));
  const data = new DataWriter();
  steps.forEach((step, i) => putStep(records, headerBytes + i * recordBytes, step, data));
  data.append(new Uint8Array(1)); // no string of the last step ends at the very end of the data
  putHeader(records, plan, data.bytes.length);
  const result = new Uint8Array(records.byteLength + data.bytes.length);
  result.set(new Uint8Array(records.buffer));
  result.set(data.bytes, records.byteLength);
  return result;
}

function putHeader(view: DataView, plan: LaunchPlan, dataLength: number): void {
  view.setUint32(0, magic, true);
  view.setUint16(4, planVersion, true);
  view.setUint16(6, planKinds.indexOf(plan.kind) + 1, true);
  view.setUint32(8, plan.outer.length, true);
  view.setUint32(12, plan.inner.length, true);
  view.setUint32(16, view.byteLength, true);
  view.setUint32(20, dataLength, true);
}

function putStep(view: DataView, at: number, step: AnyStep, data: DataWriter): void {
  const entry = entries.get(step.op);
  if (entry === undefined) throw new RuntimeError('internal', `launch plan: no wire format for step ${step.op}`);
  const record = new RecordWriter(view, at, entry.code, data);
  const fields = step as unknown as Readonly<Record<string, unknown>>;
  for (const [name, codec] of Object.entries(entry.fields)) codec.put(record, fields[name]);
}

/** The plan in `bytes`, for people and tests; throws `corrupt`. The shim has a stricter decoder of its own. */
export function decodePlan(bytes: Uint8Array): LaunchPlan {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const header = getHeader(view);
  const data = bytes.subarray(header.dataOffset);
  const step = (i: number): AnyStep => getStep(view, headerBytes + i * recordBytes, data);
  const outer = Array.from({ length: header.outerCount }, (_, i) => asOuter(step(i)));
  const inner = Array.from({ length: header.innerCount }, (_, i) => asInner(step(header.outerCount + i)));
  return { kind: header.kind, outer, inner };
}

const corrupt = (message: string): RuntimeError => new RuntimeError('corrupt', `launch plan: ${message}`);

function getHeader(view: DataView): {
  kind: LaunchPlan['kind'];
  outerCount: number;
  innerCount: number;
  dataOffset: number;
} {
  if (view.byteLength < headerBytes || view.getUint32(0, true) !== magic) throw corrupt('not a launch plan');
  if (view.getUint16(4, true) !== planVersion) throw corrupt(`version ${view.getUint16(4, true)} is not known`);
  const kind = planKinds[view.getUint16(6, true) - 1];
  const outerCount = view.getUint32(8, true);
  const innerCount = view.getUint32(12, true);
  const dataOffset = view.getUint32(16, true);
  if (kind === undefined) throw corrupt('unknown kind of plan');
  if (outerCount + innerCount > maxSteps) throw corrupt('too many steps');
  const expected = headerBytes + (outerCount + innerCount) * recordBytes;
  if (dataOffset !== expected || dataOffset + view.getUint32(20, true) !== view.byteLength) {
    throw corrupt('its length is not what its header says');
  }
  return { kind, outerCount, innerCount, dataOffset };
}

function getStep(view: DataView, at: number, data: Uint8Array): AnyStep {
  const op = opsByCode.get(view.getUint16(at, true));
  const entry = op === undefined ? undefined : entries.get(op);
  if (entry === undefined) throw corrupt('unknown step');
  const record = new RecordReader(view, at, data);
  const fields = Object.entries(entry.fields).map(([name, codec]) => [name, codec.get(record)] as const);
  return { op, ...Object.fromEntries(fields.filter(([, value]) => value !== undefined)) } as unknown as AnyStep;
}

function asOuter(step: AnyStep): OuterStep {
  if (!(step.op in outerTable)) throw corrupt(`step ${step.op} is not an outer one`);
  return step as OuterStep;
}

function asInner(step: AnyStep): InnerStep {
  if (!(step.op in innerTable)) throw corrupt(`step ${step.op} is not an inner one`);
  return step as InnerStep;
}
