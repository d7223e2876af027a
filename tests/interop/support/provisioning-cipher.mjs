// What a primary tells a device that it links, and how it is sealed so that the server learns nothing.

import { createCipheriv, createDecipheriv, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

import { IdentityKeyPair, PrivateKey, PublicKey, hkdf } from '../../../examples/chat/lib/signal.mjs';
import { readFields } from '../../../examples/chat/lib/envelope.mjs';

const LABEL = new Uint8Array(Buffer.from('TextSecure Provisioning Message'));
const VERSION = 1;
const IV_BYTES = 16;
const MAC_BYTES = 32;

/** Fields of the protobuf ProvisionMessage that this needs, by number. */
const FIELDS = Object.freeze({
  identityPublic: 1,
  identityPrivate: 2,
  number: 3,
  code: 4,
  userAgent: 5,
  profileKey: 6,
  aci: 8,
  version: 9,
  pni: 10,
  pniIdentityPublic: 11,
  pniIdentityPrivate: 12,
});

/** A serialised ProvisionEnvelope with what `device` has to share, for the holder of this public key. */
export function sealProvision(recipient, { device, code, profileKey }) {
  const ephemeral = PrivateKey.generate();
  const { cipherKey, macKey } = keys(ephemeral, recipient);
  const iv = randomBytes(IV_BYTES);
  const cipher = createCipheriv('aes-256-cbc', cipherKey, iv);
  const message = writeFields([
    [FIELDS.identityPublic, device.identity.publicKey.serialize()],
    [FIELDS.identityPrivate, device.identity.privateKey.serialize()],
    [FIELDS.number, device.number],
    [FIELDS.code, code],
    [FIELDS.userAgent, 'blind-relay-interop'],
    [FIELDS.profileKey, profileKey],
    [FIELDS.aci, device.aci],
    [FIELDS.version, VERSION],
    [FIELDS.pni, device.pni],
    [FIELDS.pniIdentityPublic, device.pniIdentity.publicKey.serialize()],
    [FIELDS.pniIdentityPrivate, device.pniIdentity.privateKey.serialize()],
  ]);
  const sealed = Buffer.concat([Buffer.of(VERSION), iv, cipher.update(message), cipher.final()]);
  return writeFields([
    [1, ephemeral.getPublicKey().serialize()],
    [2, Buffer.concat([sealed, mac(macKey, sealed)])],
  ]);
}

/** Opens a ProvisionEnvelope that was sealed to this key. */
export function openProvision(key, envelope) {
  const fields = readFields(envelope);
  const body = Buffer.from(fields.get(2));
  const { cipherKey, macKey } = keys(key, PublicKey.deserialize(fields.get(1)));
  const sealed = body.subarray(0, -MAC_BYTES);
  if (sealed[0] !== VERSION || !timingSafeEqual(mac(macKey, sealed), body.subarray(-MAC_BYTES))) {
    throw new Error('the provisioning message was changed on its way');
  }
  const decipher = createDecipheriv('aes-256-cbc', cipherKey, sealed.subarray(1, 1 + IV_BYTES));
  const plain = Buffer.concat([decipher.update(sealed.subarray(1 + IV_BYTES)), decipher.final()]);
  const message = readFields(new Uint8Array(plain));
  const bytes = (no) => new Uint8Array(message.get(no));
  const text = (no) => Buffer.from(message.get(no)).toString('utf8');
  const pair = (publicNo, privateNo) =>
    new IdentityKeyPair(PublicKey.deserialize(bytes(publicNo)), PrivateKey.deserialize(bytes(privateNo)));
  return {
    identity: pair(FIELDS.identityPublic, FIELDS.identityPrivate),
    pniIdentity: pair(FIELDS.pniIdentityPublic, FIELDS.pniIdentityPrivate),
    number: text(FIELDS.number),
    code: text(FIELDS.code),
    profileKey: bytes(FIELDS.profileKey),
    aci: text(FIELDS.aci),
    pni: text(FIELDS.pni),
  };
}

function keys(ours, theirs) {
  const derived = hkdf(64, ours.agree(theirs), LABEL, null);
  return { cipherKey: derived.subarray(0, 32), macKey: derived.subarray(32) };
}

function mac(key, bytes) {
  return createHmac('sha256', key).update(bytes).digest();
}

/** Protobuf fields: numbers as varints below 128, texts and bytes with their length. */
function writeFields(fields) {
  const parts = fields.flatMap(([no, value]) => {
    if (typeof value === 'number') return [Buffer.of(no << 3, value)];
    const bytes = Buffer.from(value);
    return [Buffer.of((no << 3) | 2), length(bytes.length), bytes];
  });
  return new Uint8Array(Buffer.concat(parts));
}

function length(value) {
  return value < 0x80 ? Buffer.of(value) : Buffer.of((value & 0x7f) | 0x80, value >> 7);
}
