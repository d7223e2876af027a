//! What needs files besides the code: the official library's vectors, and the generator of the protobuf code.

mod generated;
mod vectors;
