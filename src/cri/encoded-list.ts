/**
 * List answers out of pieces that are encoded once per object. Views are immutable: while an object does not change,
 * its piece is reused, and a list of a thousand containers is one concatenation.
 */
import { BinaryWriter } from '@bufbuild/protobuf/wire';

interface Encoder<Wire> {
  encode(message: Wire, writer?: BinaryWriter): BinaryWriter;
}

/** Encodes objects as elements of a repeated message field with number `field`. */
export class ListEncoder<View extends object, Wire> {
  readonly #pieces = new WeakMap<View, Uint8Array>();
  readonly #tag: number;
  readonly #message: Encoder<Wire>;
  readonly #toWire: (view: View) => Wire;

  constructor(field: number, message: Encoder<Wire>, toWire: (view: View) => Wire) {
    this.#tag = (field << 3) | 2;
    this.#message = message;
    this.#toWire = toWire;
  }

  /** The encoded response. */
  encode(views: readonly View[]): Buffer {
    return Buffer.concat(views.map((view) => this.#piece(view)));
  }

  #piece(view: View): Uint8Array {
    const known = this.#pieces.get(view);
    if (known !== undefined) return known;
    const writer = new BinaryWriter().uint32(this.#tag).fork();
    const piece = this.#message.encode(this.#toWire(view), writer).join().finish();
    this.#pieces.set(view, piece);
    return piece;
  }
}

/** For method definitions whose response is encoded already. */
export const alreadyEncoded = (response: Buffer): Buffer => response;
