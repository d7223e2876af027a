//! What needs files besides the code: the official library's vectors, and the generator of the protobuf code.

mod certificates;
mod generated;
mod multi_recipient;
mod usernames;
mod vectors;
