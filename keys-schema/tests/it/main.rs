//! What needs files besides the code: the official library's vectors, and the generator of the protobuf code.

mod certificates;
mod framing;
mod generated;
mod multi_recipient;
mod sealed_queue;
mod usernames;
mod vectors;
