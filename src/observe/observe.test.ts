import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { StepRecorder } from '../kit/step-recorder.js';
import { silentObserver } from '../kit/observer.js';
import { createLogger } from './logger.js';
import { createMetrics, metricTable, stepLabel } from './metrics.js';
import { createObservability } from './observer.js';
import { noTracing, openTracing } from './tracing.js';
import { renderWaterfall } from './waterfall.js';

const collect = (format: 'json' | 'text' = 'json') => {
  const lines: string[] = [];
  const logger = createLogger({ level: 'debug', format }, { write: (line: string) => void lines.push(line) });
  return { lines, logger };
};

describe('logger', () => {
  it('hides secrets wherever a request carries them', () => {
    const { lines, logger } = collect();
    logger.info(
      { auth: { password: 'hunter2' }, request: { auth: 'aHVudGVyMg' }, a: { b: { env: 'T=hunter2' } } },
      'm',
    );
    assert.doesNotMatch(lines.join(''), /hunter2|aHVudGVyMg/);
  });

  it('writes lines for people', () => {
    const { lines, logger } = collect('text');
    logger.warn({ pod: 'a' }, 'slow');
    assert.match(lines[0] ?? '', /^\d\d:\d\d:\d\d\.\d{3} warn {2}slow pod=a\n$/);
  });
});

describe('observability', () => {
  it('counts, times and lists requests, and forgets them when they end', async () => {
    const { lines, logger } = collect();
    const metrics = createMetrics('1.2.3', { shims: () => 4, pods: () => ({ ready: 2 }) });
    const all = createObservability({ logger, metrics, tracing: noTracing });
    const request = all.begin('RunPodSandbox', { pod: 'web' });
    await request.observer.step('create pod cgroup', () => undefined);
    await assert.rejects(request.observer.step('start shim', () => Promise.reject(new Error('broken'))));
    assert.deepEqual(
      all.inFlight().map(({ method, facts }) => ({ method, facts })),
      [{ method: 'RunPodSandbox', facts: { pod: 'web' } }],
    );
    request.end('INTERNAL', new Error('start shim: broken'));
    request.end('OK');
    assert.deepEqual(all.inFlight(), []);
    assert.deepEqual(
      request.steps.map(({ name, failed }) => [name, failed]),
      [
        ['create pod cgroup', false],
        ['start shim', true],
      ],
    );
    const text = await metrics.registry.metrics();
    assert.match(text, /berth_request_seconds_count\{method="RunPodSandbox",status="INTERNAL"\} 1/);
    assert.match(text, /berth_step_failures_total\{method="RunPodSandbox",step="start shim"\} 1/);
    assert.match(text, /berth_requests_in_flight\{method="RunPodSandbox"\} 0/);
    assert.match(text, /berth_shims 4/);
    assert.match(text, /berth_pods\{state="ready"\} 2/);
    for (const [name] of Object.values(metricTable).filter(([name]) => !/containers|residue/.test(name)))
      assert.match(text, new RegExp(`^# HELP ${name} `, 'm'));
    assert.equal(lines.length, 1);
    assert.match(lines[0] ?? '', /"pod":"web","status":"INTERNAL".*"msg":"RunPodSandbox: start shim: broken"/);
  });

  it('counts what requests tell to be counted, and shows how far a step has come', async () => {
    const metrics = createMetrics('1.2.3');
    const all = createObservability({ logger: collect().logger, metrics, tracing: noTracing });
    const request = all.begin('CreateContainer');
    await request.observer.step('remap snapshot', () => {
      request.observer.progress?.({ entries: 20, bytes: 4096 });
      const [inFlight] = all.inFlight();
      assert.deepEqual(inFlight?.steps[0]?.progress, { entries: 20, bytes: 4096 });
      assert.match(renderWaterfall(inFlight?.steps ?? []), /running .* 20 entries, 4096 bytes/);
      request.observer.measure?.('remap', { way: 'metacopy' }, 0.3);
    });
    request.observer.measure?.('snapshot', { way: 'metacopy', remap: 'made' });
    request.end('OK');
    const text = await metrics.registry.metrics();
    assert.match(text, /berth_snapshots_total\{way="metacopy",remap="made"\} 1/);
    assert.match(text, /berth_remap_seconds_sum\{way="metacopy"\} 0\.3/);
  });

  it('keeps ids out of step labels', () => {
    assert.equal(stepLabel('unpack sha256:0123456789abcdef of "docker.io/a"'), 'unpack … of …');
    assert.equal(stepLabel('remove /run/berth/x'), 'remove …');
  });

  it('sends a span per request and step to an OTLP collector', async () => {
    const bodies: Buffer[] = [];
    const paths: (string | undefined)[] = [];
    const collector = createServer((request, response) => {
      paths.push(request.url);
      request.on('data', (chunk: Buffer) => bodies.push(chunk)).on('end', () => response.end());
    });
    await new Promise<void>((resolve) => collector.listen(0, '127.0.0.1', resolve));
    const { port } = collector.address() as AddressInfo;
    try {
      const config = { endpoint: `http://127.0.0.1:${port}`, protocol: 'http', sampling: 1 } as const;
      const tracing = await openTracing(config, '1.2.3');
      const all = createObservability({ logger: collect().logger, metrics: undefined, tracing });
      const traceId = '0af7651916cd43dd8448eb211c80319c';
      const request = all.begin('RunPodSandbox', {}, `00-${traceId}-b7ad6b7169203331-01`);
      await request.observer.step('create pod cgroup', () => undefined);
      request.end('OK');
      await tracing.close();
      const sent = Buffer.concat(bodies);
      assert.deepEqual(paths, ['/v1/traces']);
      for (const part of ['RunPodSandbox', 'create pod cgroup', Buffer.from(traceId, 'hex')])
        assert.ok(sent.includes(part));
    } finally {
      collector.close();
    }
  });

  it('loads no tracing without an endpoint', async () => {
    const tracing = await openTracing({ endpoint: '', protocol: 'grpc', sampling: 1 }, '1');
    assert.equal(tracing, noTracing);
  });
});

describe('waterfall', () => {
  it('indents steps below those that contain them', async () => {
    const recorder = new StepRecorder(silentObserver);
    await recorder.step('outer', () => recorder.step('inner', () => undefined));
    await recorder.step('after', () => undefined);
    const [outer, inner, after, total] = renderWaterfall(recorder.steps).split('\n');
    assert.match(outer ?? '', /^outer /);
    assert.match(inner ?? '', /^ {2}inner /);
    assert.match(after ?? '', /^after /);
    assert.match(total ?? '', /^total +\d+\.\d\d ms$/);
  });

  it('places bars where the steps ran', () => {
    const steps = [
      { name: 'a', start: 0, duration: 5, failed: false },
      { name: 'b', start: 5, duration: 5, failed: true },
    ];
    assert.equal(
      renderWaterfall(steps, 39),
      ['a      5.00 ms  ██████████', 'b      5.00 ms            ██████████ failed', 'total     10.00 ms'].join('\n'),
    );
  });
});
