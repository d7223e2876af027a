// The one import of the official library. The interop tests import it from here as well: two copies of the native
// module in one process would not recognise each other's keys.

export * from '@signalapp/libsignal-client';
export * as zkgroup from '@signalapp/libsignal-client/zkgroup.js';
