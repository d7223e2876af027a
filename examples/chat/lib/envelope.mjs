// Reads and writes the protobuf `Envelope` that the server pushes: just the fields a client needs, by number.

export const EnvelopeType = Object.freeze({ CIPHERTEXT: 1, PREKEY: 3, RECEIPT: 5, SEALED: 6 });

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;
const FIXED32 = 5;

/**
 * Decodes an envelope. Unknown fields are skipped, so a newer server does no harm.
 * @param {Uint8Array} bytes
 */
export function readEnvelope(bytes) {
  const fields = readFields(bytes);
  const number = (no) => (fields.has(no) ? Number(fields.get(no)) : undefined);
  const text = (no) => (fields.has(no) ? Buffer.from(fields.get(no)).toString('utf8') : undefined);
  const uuid = (no) => (fields.has(no) ? uuidFromBytes(fields.get(no)) : undefined);
  return {
    type: number(1) ?? 0,
    timestamp: number(5) ?? 0,
    sourceDevice: number(7),
    content: fields.get(8),
    serverTimestamp: number(10) ?? 0,
    urgent: number(14) !== 0,
    source: uuid(19) ?? text(11),
    destination: uuid(20) ?? text(13),
    guid: uuid(21) ?? text(9),
  };
}

/** Encodes the fields of {@link readEnvelope}, ids in their string form. For tests. */
export function writeEnvelope(envelope) {
  const parts = [];
  const number = (no, value) => value !== undefined && parts.push(varint(no << 3), varint(value));
  const bytes = (no, value) =>
    value !== undefined && parts.push(varint((no << 3) | BYTES), varint(value.length), Buffer.from(value));
  const text = (no, value) => value !== undefined && bytes(no, Buffer.from(value));
  number(1, envelope.type);
  number(5, envelope.timestamp);
  number(7, envelope.sourceDevice);
  bytes(8, envelope.content);
  text(9, envelope.guid);
  number(10, envelope.serverTimestamp);
  text(11, envelope.source);
  text(13, envelope.destination);
  number(14, envelope.urgent === undefined ? undefined : Number(envelope.urgent));
  return new Uint8Array(Buffer.concat(parts));
}

/** Field number to its last value: a BigInt for varints and a Uint8Array for bytes. */
export function readFields(bytes) {
  const fields = new Map();
  let at = 0;
  const take = (length) => {
    if (at + length > bytes.length) throw new Error('envelope ends in the middle of a field');
    at += length;
    return bytes.subarray(at - length, at);
  };
  const readVarint = () => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const [byte] = take(1);
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error('envelope holds a number longer than ten bytes');
  };
  while (at < bytes.length) {
    const tag = readVarint();
    const no = Number(tag >> 3n);
    switch (Number(tag & 7n)) {
      case VARINT:
        fields.set(no, readVarint());
        break;
      case BYTES:
        fields.set(no, new Uint8Array(take(Number(readVarint()))));
        break;
      case FIXED64:
        take(8);
        break;
      case FIXED32:
        take(4);
        break;
      default:
        throw new Error(`envelope field ${no} has an unknown wire type`);
    }
  }
  return fields;
}

function varint(value) {
  const bytes = [];
  let rest = BigInt(value);
  do {
    bytes.push(Number(rest & 0x7fn) | (rest > 0x7fn ? 0x80 : 0));
    rest >>= 7n;
  } while (rest > 0n);
  return Buffer.from(bytes);
}

/** 16 bytes are an ACI; 17 bytes starting with 1 are a PNI. */
function uuidFromBytes(bytes) {
  const hex = Buffer.from(bytes.subarray(-16)).toString('hex');
  const uuid = hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
  return bytes.length === 17 && bytes[0] === 1 ? `PNI:${uuid}` : uuid;
}
