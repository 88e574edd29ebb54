import type * as Api from '@opentelemetry/api';
import type { Config } from '../config.js';

/** A span under way. Attributes are small printable facts. */
export interface TraceSpan {
  child(name: string): TraceSpan;
  /** Ends the span; with an error's message it is marked as failed. */
  end(error?: string): void;
}

export interface Tracing {
  /** `traceparent` is the W3C header of the caller, when it sent one. */
  start(name: string, traceparent?: string): TraceSpan;
  close(): Promise<void>;
}

const noSpan: TraceSpan = { child: () => noSpan, end: () => undefined };
export const noTracing: Tracing = { start: () => noSpan, close: () => Promise.resolve() };

/** OpenTelemetry costs 10 MB and is loaded only when an endpoint is configured. */
export async function openTracing(config: Config['tracing'], version: string): Promise<Tracing> {
  if (config.endpoint === '') return noTracing;
  const [api, { tracing, resources }, exporter] = await Promise.all([
    import('@opentelemetry/api'),
    import('@opentelemetry/sdk-node'),
    loadExporter(config),
  ]);
  const provider = new tracing.BasicTracerProvider({
    resource: resources.resourceFromAttributes({ 'service.name': 'berth', 'service.version': version }),
    sampler: new tracing.ParentBasedSampler({ root: new tracing.TraceIdRatioBasedSampler(config.sampling) }),
    spanProcessors: [new tracing.BatchSpanProcessor(exporter)],
  });
  const tracer = provider.getTracer('berth', version);
  return { start: (name, traceparent) => startRoot(api, tracer, name, traceparent), close: () => provider.shutdown() };
}

async function loadExporter({ endpoint, protocol }: Config['tracing']) {
  if (protocol === 'grpc') {
    const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-grpc');
    return new OTLPTraceExporter({ url: endpoint });
  }
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-proto');
  const url = new URL(endpoint);
  if (url.pathname === '/') url.pathname = '/v1/traces';
  return new OTLPTraceExporter({ url: url.href });
}

function startRoot(api: typeof Api, tracer: Api.Tracer, name: string, traceparent?: string): TraceSpan {
  const parent = parseTraceparent(traceparent);
  const context = parent === undefined ? api.ROOT_CONTEXT : api.trace.setSpanContext(api.ROOT_CONTEXT, parent);
  return wrap(api, tracer, tracer.startSpan(name, { kind: api.SpanKind.SERVER }, context));
}

function wrap(api: typeof Api, tracer: Api.Tracer, span: Api.Span): TraceSpan {
  return {
    child: (name) => wrap(api, tracer, tracer.startSpan(name, {}, api.trace.setSpan(api.ROOT_CONTEXT, span))),
    end(error) {
      if (error !== undefined) span.setStatus({ code: api.SpanStatusCode.ERROR, message: error });
      span.end();
    },
  };
}

/** W3C Trace Context, version 00: `00-TRACEID-SPANID-FLAGS`. */
function parseTraceparent(header: string | undefined) {
  const match = /^[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})/.exec(header ?? '');
  if (match === null) return undefined;
  return { traceId: match[1] ?? '', spanId: match[2] ?? '', traceFlags: parseInt(match[3] ?? '0', 16), isRemote: true };
}
