// Makes keys-schema/vectors/framing.json: messages of every type as the official library writes them, and changed ones
// with its verdict on each. Keys are new on every run, so all of the file changes:
//
//   node tests/interop/vectors/framing.mjs > keys-schema/vectors/framing.json

import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';

import {
  CiphertextMessageType,
  ContentHint,
  DecryptionErrorMessage,
  IdentityKeyPair,
  PlaintextContent,
  PreKeyBundle,
  PreKeyRecord,
  PreKeySignalMessage,
  PrivateKey,
  ProtocolAddress,
  SenderCertificate,
  SenderKeyDistributionMessage,
  ServerCertificate,
  SignalMessage,
  UnidentifiedSenderMessageContent,
  groupEncrypt,
  processPreKeyBundle,
  sealedSenderDecryptToUsmc,
  sealedSenderEncrypt,
  sealedSenderEncryptMessage,
  sealedSenderMultiRecipientEncrypt,
  sealedSenderMultiRecipientMessageForSingleRecipient,
  signalDecrypt,
  signalDecryptPreKey,
  signalEncrypt,
} from '../../../examples/chat/lib/signal.mjs';
import { Device } from '../../../examples/chat/lib/device.mjs';
import { makeKyberPreKey, makeSignedPreKey } from '../../../examples/chat/lib/keys.mjs';
import { pad } from '../../../examples/chat/lib/padding.mjs';
import { SenderKeys } from '../support/groups.mjs';

const DAY_MS = 24 * 3600 * 1000;

// ---- two devices and a server's word for one of them

const device = () =>
  new Device({ aci: randomUUID(), deviceId: 1, registrationId: 4711, identity: IdentityKeyPair.generate() });

/** Meets `other` with the keys of a bundle; the one-time key may be missing. */
async function meet(own, other, { oneTime }) {
  const signed = makeSignedPreKey(2, other.identity);
  const kyber = makeKyberPreKey(3, other.identity);
  const once = PrivateKey.generate();
  await other.signedPreKeyStore.saveSignedPreKey(2, signed);
  await other.kyberPreKeyStore.saveKyberPreKey(3, kyber);
  if (oneTime) await other.preKeyStore.savePreKey(1, PreKeyRecord.new(1, once.getPublicKey(), once));
  const bundle = PreKeyBundle.new(
    other.registrationId,
    1,
    oneTime ? 1 : null,
    oneTime ? once.getPublicKey() : null,
    2,
    signed.publicKey(),
    signed.signature(),
    other.identity.publicKey,
    3,
    kyber.publicKey(),
    kyber.signature(),
  );
  await processPreKeyBundle(bundle, other.address, own.address, own.sessionStore, own.identityStore);
}

const encrypt = (own, other, text) =>
  signalEncrypt(pad(text), other.address, own.address, own.sessionStore, own.identityStore);

function decrypt(own, other, bytes, type) {
  const sessions = [other.address, own.address, own.sessionStore, own.identityStore];
  return type === CiphertextMessageType.PreKey
    ? signalDecryptPreKey(
        PreKeySignalMessage.deserialize(bytes),
        ...sessions,
        own.preKeyStore,
        own.signedPreKeyStore,
        own.kyberPreKeyStore,
      )
    : signalDecrypt(SignalMessage.deserialize(bytes), ...sessions);
}

function certificateOf(own) {
  const [root, server] = [PrivateKey.generate(), PrivateKey.generate()];
  const signer = ServerCertificate.new(1, server.getPublicKey(), root);
  const expires = Math.floor(Date.now() / DAY_MS) * DAY_MS + DAY_MS;
  return SenderCertificate.new(own.aci, null, 1, own.identity.publicKey, expires, signer, server);
}

// ---- genuine messages

const genuine = [];
const add = (what, type, bytes) => genuine.push({ what, type, bytes: hex(bytes) }) && bytes;

const [alice, bob, carol] = [device(), device(), device()];
await meet(alice, bob, { oneTime: true });
await meet(alice, carol, { oneTime: false });
const certificate = certificateOf(alice);

const first = await encrypt(alice, bob, 'hello');
const firstBytes = add('the first message, with a one-time key', 3, first.serialize());
add('the first message, without a one-time key', 3, (await encrypt(alice, carol, 'hello')).serialize());
add('the second message, before there is an answer', 3, (await encrypt(alice, bob, 'x'.repeat(700))).serialize());
const seal = (to, text) =>
  sealedSenderEncryptMessage(pad(text), to.address, certificate, alice.sessionStore, alice.identityStore);
add('a sealed first message', 6, await seal(bob, 'hello'));

await decrypt(bob, alice, firstBytes, CiphertextMessageType.PreKey);
let message;
for (let round = 0; round < 3; round += 1) {
  for (const [own, other] of [[bob, alice], [alice, bob]]) {
    message = await encrypt(own, other, `round ${round}`);
    add(`a message of a running session, round ${round}, from ${own === alice ? 'alice' : 'bob'}`, 1, message.serialize());
    await decrypt(other, own, message.serialize(), CiphertextMessageType.Whisper);
  }
}
add('a long message of a running session', 1, (await encrypt(alice, bob, 'x'.repeat(3000))).serialize());
add('a sealed message of a running session', 6, await seal(bob, 'hello'));

const senderKeys = new SenderKeys();
const group = randomUUID();
await SenderKeyDistributionMessage.create(alice.address, group, senderKeys);
const ofGroup = await groupEncrypt(alice.address, group, senderKeys, pad('to all'));
const toAll = await sealedSenderMultiRecipientEncrypt({
  content: UnidentifiedSenderMessageContent.new(ofGroup, certificate, ContentHint.Default, null),
  recipients: [bob.address],
  identityStore: alice.identityStore,
  sessionStore: alice.sessionStore,
});
const received = sealedSenderMultiRecipientMessageForSingleRecipient(toAll);
add('a message to many, as one of them is given it', 6, received);

const pleas = [
  ['a message of a running session', message.serialize(), CiphertextMessageType.Whisper],
  ['a first message', firstBytes, CiphertextMessageType.PreKey],
  ['a message to many', ofGroup.serialize(), CiphertextMessageType.SenderKey],
];
let somePlea;
for (const [of, bytes, type] of pleas) {
  const plea = PlaintextContent.from(DecryptionErrorMessage.forOriginal(bytes, type, Date.now(), 127));
  add(`a plea to send ${of} again`, 8, plea.serialize());
  somePlea ??= plea;
  const content = UnidentifiedSenderMessageContent.new(plea.asCiphertextMessage(), certificate, ContentHint.Default, null);
  add(`a sealed plea to send ${of} again`, 6, await sealedSenderEncrypt(content, bob.address, alice.identityStore));
}

const [key, other] = [PrivateKey.generate().getPublicKey(), alice.identity.publicKey];
const whisper = (version, pqRatchet) =>
  SignalMessage._new(version, new Uint8Array(32), key, 3, 2, new Uint8Array(16).fill(7), other, key, pqRatchet);
const older = whisper(3, new Uint8Array());
add('version 3 of a message of a running session', 1, older.serialize());
const start = (version, id, inner) => PreKeySignalMessage._new(version, 4711, id, 2, key, other, inner);
const olderStart = start(3, 1, older);
add('version 3 of a first message', 3, olderStart.serialize());
add('version 3 of a first message, without a one-time key', 3, start(3, null, older).serialize());

// ---- changed messages

/** The fields of a protobuf message: number, wire type and the bytes of the whole field. */
function fields(bytes) {
  const found = [];
  for (let at = 0; at < bytes.length; ) {
    const from = at;
    const varint = () => {
      let value = 0n;
      for (let shift = 0n; ; shift += 7n) {
        value |= BigInt(bytes[at] & 0x7f) << shift;
        if (bytes[at++] < 0x80) return Number(value);
      }
    };
    const tag = varint();
    if ((tag & 7) === 0) varint();
    else if ((tag & 7) === 2) at = varint() + at;
    else throw new Error('no such field here');
    found.push({ number: tag >> 3, wire: tag & 7, bytes: bytes.slice(from, at) });
  }
  return found;
}

const bytesOf = (...parts) => new Uint8Array(Buffer.concat(parts.map((part) => Buffer.from(part))));
const UNKNOWN = [
  ['a number', [0x78, 0x80, 0x01]],
  ['eight bytes', [0x79, 1, 2, 3, 4, 5, 6, 7, 8]],
  ['bytes', [0x7a, 3, 1, 2, 3]],
  ['four bytes', [0x7d, 1, 2, 3, 4]],
  ['a field of a large number', [0xfa, 0xff, 0xff, 0xff, 0x0f, 1, 0]],
  ['a group', [0x7b, 0x7c]],
  ['an open group', [0x7b]],
  ['wire type 6', [0x7e, 0]],
  ['field 0', [0x00, 0x00]],
  ['a length beyond the end', [0x7a, 0x7f, 1]],
  ['a length that overflows', [0x7a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]],
  ['a number of eleven bytes', [0x78, ...Array(10).fill(0xff), 0x01]],
  ['a number without its end', [0x78, 0x80]],
];

/** Every change of one thing in the protobuf part of a message. */
function* changes(body) {
  const all = fields(body);
  const without = (n) => all.filter((_, i) => i !== n).map((field) => field.bytes);
  for (const [n, { number, wire, bytes }] of all.entries()) {
    yield [`without field ${number}`, bytesOf(...without(n))];
    yield [`field ${number} twice`, bytesOf(...all.map((field) => field.bytes), bytes)];
    yield [`field ${number} last`, bytesOf(...without(n), bytes)];
    const tag = number << 3;
    yield [`field ${number} of another wire type`, bytesOf(...without(n), wire === 0 ? [tag | 2, 1, 5] : [tag, 5])];
    if (wire === 2) {
      const content = bytes.slice(bytes.length - fieldLength(bytes));
      const sized = (part) => [...without(n), bytesOf([tag | 2, ...varint(part.length)], part)];
      yield [`field ${number} empty`, bytesOf(...sized([]))];
      yield [`field ${number} without its last byte`, bytesOf(...sized(content.slice(0, -1)))];
      yield [`field ${number} with another first byte`, bytesOf(...sized([content[0] ^ 1, ...content.slice(1)]))];
    }
  }
  for (const [what, field] of UNKNOWN) yield [`with ${what} behind it`, bytesOf(body, field)];
}

/** Length of the content of a field with bytes. */
function fieldLength(field) {
  let at = 1;
  let value = 0;
  for (let shift = 0; ; shift += 7) {
    value |= (field[at] & 0x7f) << shift;
    if (field[at++] < 0x80) return value;
  }
}

function varint(value) {
  const bytes = [];
  for (; value >= 0x80; value >>>= 7) bytes.push((value & 0x7f) | 0x80);
  return [...bytes, value];
}

function reads(read, bytes) {
  try {
    read(bytes);
    return true;
  } catch {
    return false;
  }
}

const readPlea = (bytes) => DecryptionErrorMessage.extractFromSerializedBody(PlaintextContent.deserialize(bytes).body());
/** What is changed lies between the first `head` and the last `tail` bytes. */
const BASES = [
  {
    what: 'a message of a running session',
    type: 1,
    message: older,
    head: 1,
    tail: 8,
    read: (bytes) => SignalMessage.deserialize(bytes),
  },
  {
    what: 'a first message',
    type: 3,
    message: olderStart,
    head: 1,
    tail: 0,
    read: (bytes) => PreKeySignalMessage.deserialize(bytes),
  },
  { what: 'a plea', type: 8, message: somePlea, head: 1, tail: 1, read: readPlea },
  {
    what: 'a plea, inside',
    type: 8,
    message: somePlea,
    head: 3,
    tail: 1,
    wrap: (inner) => bytesOf([0xc0, 0x42, ...varint(inner.length)], inner, [0x80]),
    read: readPlea,
  },
];
const changed = [];
const cutAndHeaded = [];
for (const { what, type, message, head, tail, wrap, read } of BASES) {
  const bytes = new Uint8Array(message.serialize());
  const put = wrap ?? ((body) => bytesOf(bytes.slice(0, head), body, bytes.slice(bytes.length - tail)));
  for (const [change, altered] of changes(bytes.slice(head, bytes.length - tail))) {
    const made = put(altered);
    changed.push({ what: `${what}, ${change}`, type, bytes: hex(made), reads: reads(read, made) });
  }
  if (wrap) continue;
  const accepted = [];
  for (let byte = 0; byte < 256; byte += 1) {
    if (reads(read, bytesOf([byte], bytes.slice(1)))) accepted.push(byte);
  }
  const cut = [];
  for (let length = 0; length < bytes.length; length += 1) {
    if (reads(read, bytes.slice(0, length))) cut.push(length);
  }
  cutAndHeaded.push({ what, type, bytes: hex(bytes), firstBytesRead: accepted, cutLengthsRead: cut });
}
// A first message of version 4 without a Kyber key, with half of one, and around a message of the other version.
const kyberless = new Uint8Array(olderStart.serialize());
const kyberFields = [
  ['Kyber key id alone', [0x38, 3]],
  ['Kyber ciphertext alone', [0x42, 2, 8, 1]],
  ['Kyber key id and ciphertext', [0x38, 3, 0x42, 2, 8, 1]],
];
for (const version of [0x33, 0x34, 0x44]) {
  const headed = bytesOf([version], kyberless.slice(1));
  const name = `a first message that begins with ${version.toString(16)}`;
  const read = (bytes) => PreKeySignalMessage.deserialize(bytes);
  changed.push({ what: `${name}, no Kyber key`, type: 3, bytes: hex(headed), reads: reads(read, headed) });
  for (const [what, field] of kyberFields) {
    const made = bytesOf(headed, field);
    changed.push({ what: `${name}, ${what}`, type: 3, bytes: hex(made), reads: reads(read, made) });
  }
}

// What the library itself refuses to open is no example.
for (const { bytes, type } of genuine) {
  const content = new Uint8Array(Buffer.from(bytes, 'hex'));
  if (type === 1) SignalMessage.deserialize(content);
  if (type === 3) PreKeySignalMessage.deserialize(content);
  if (type === 6) await sealedSenderDecryptToUsmc(content, bob.identityStore);
  if (type === 8) readPlea(content);
}

const require = createRequire(new URL('../../../examples/chat/lib/signal.mjs', import.meta.url));
const { version } = require('@signalapp/libsignal-client/package.json');
const source = `@signalapp/libsignal-client ${version}, by tests/interop/vectors/framing.mjs`;
console.log(JSON.stringify({ source, genuine, changed, cutAndHeaded }, null, 1));

function hex(bytes) {
  return Buffer.from(bytes).toString('hex');
}
