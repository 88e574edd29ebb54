import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

/** What `buf build` says of api.proto: protobuf's FileDescriptorSet as JSON, the parts read here. */
interface Field {
  readonly name: string;
  readonly number: number;
  readonly label: string;
  readonly type: string;
  readonly typeName?: string;
}
interface EnumType {
  readonly name: string;
  readonly value: readonly { readonly name: string; readonly number?: number }[];
}
interface MessageType {
  readonly name: string;
  readonly field?: readonly Field[];
  readonly nestedType?: readonly (MessageType & { readonly options?: { readonly mapEntry?: boolean } })[];
  readonly enumType?: readonly EnumType[];
}
interface Method {
  readonly name: string;
  readonly inputType: string;
  readonly outputType: string;
  readonly serverStreaming?: boolean;
  readonly clientStreaming?: boolean;
}
interface File {
  readonly package: string;
  readonly syntax: string;
  readonly messageType: readonly MessageType[];
  readonly enumType: readonly EnumType[];
  readonly service: readonly { readonly name: string; readonly method: readonly Method[] }[];
}

const proto = new URL('../../api/cri/v1/', import.meta.url);
const local = (typeName: string): string => typeName.replace('.runtime.v1.', '');

function readDescriptor(): File {
  const buf = fileURLToPath(new URL('../../node_modules/.bin/buf', import.meta.url));
  const json = execFileSync(buf, ['build', '.', '-o', '-#format=json'], {
    cwd: fileURLToPath(proto),
    encoding: 'utf8',
  });
  const image = JSON.parse(json) as { file: readonly File[] };
  const file = image.file.find((candidate) => candidate.package === 'runtime.v1');
  assert.ok(file);
  return file;
}

function fieldRow(message: MessageType, field: Field): string {
  const entry = message.nestedType?.find((nested) => field.typeName === `.runtime.v1.${message.name}.${nested.name}`);
  if (entry?.options?.mapEntry === true) {
    const types = (entry.field ?? []).map(typeOf).join(',');
    return row(message.name, field.number, field.name, `map<${types}>`, 'map');
  }
  const label = field.label === 'LABEL_REPEATED' ? 'repeated' : 'single';
  return row(message.name, field.number, field.name, typeOf(field), label);
}

const typeOf = (field: Field): string =>
  field.typeName === undefined ? field.type.replace('TYPE_', '').toLowerCase() : local(field.typeName);

const row = (...cells: readonly (string | number)[]): string => cells.join('\t');

const enumRows = (owner: string, type: EnumType): string[] =>
  type.value.map((value) => row(owner + type.name, value.number ?? 0, value.name, 'enum', '='));

function messageRows(message: MessageType): string[] {
  const fields = message.field ?? [];
  const rows = fields.length === 0 ? [row(message.name, '-', '-', '-', 'empty')] : [];
  rows.push(...fields.map((field) => fieldRow(message, field)));
  rows.push(...(message.enumType ?? []).flatMap((type) => enumRows(`${message.name}.`, type)));
  return rows;
}

function methodRows(service: File['service'][number]): string[] {
  const methods = [...service.method].sort((a, b) => (a.name < b.name ? -1 : 1));
  return methods.map((method, index) => {
    assert.notEqual(method.clientStreaming, true, method.name);
    const signature = `${local(method.inputType)}->${local(method.outputType)}`;
    return row(
      service.name,
      index + 1,
      method.name,
      signature,
      method.serverStreaming === true ? 'server-stream' : 'unary',
    );
  });
}

describe('api.proto', () => {
  it('has exactly the messages, fields, enum values and methods of fields.tsv', () => {
    const file = readDescriptor();
    assert.equal(file.syntax, 'proto3');
    const actual = [
      ...file.messageType.flatMap(messageRows),
      ...file.enumType.flatMap((type) => enumRows('', type)),
      ...file.service.flatMap(methodRows),
    ];
    const expected = readFileSync(new URL('fields.tsv', proto), 'utf8').trimEnd().split('\n').slice(1);
    assert.deepEqual(actual.sort(), expected.sort());
  });
});
